"""Votes for tests."""

from __future__ import annotations

from dataclasses import replace

from lit_sft.votes import Message, Side, Vote, Voter, VoterKind, Winner

TIME = "2026-01-31T12:00:00+00:00"


def vote(
    left: str = "a",
    right: str = "b",
    winner: Winner = "left",
    *,
    id: str = "1",
    prompt: str = "Who?",
    voter: str = "anna",
    kind: VoterKind = "person",
) -> Vote:
    """A vote on the answers of two models; each model's answer contains its name and the prompt."""
    sides = [
        Side(name, f"{name} answers {prompt}", f"digest-{name}", {"temperature": 0.7}, 3) for name in (left, right)
    ]
    return Vote(id, TIME, Voter(kind, voter), winner, (Message("user", prompt),), *sides, is_blind=True)


def numbered(*votes: Vote) -> list[Vote]:
    """Votes with different ids."""
    return [replace(each, id=str(number)) for number, each in enumerate(votes)]
