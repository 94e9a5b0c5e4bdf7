"""Reads files of votes: one set of comparisons for people and one for each judge."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Literal, TypeVar

import numpy as np

from data_modules.errors import UserError
from data_modules.progress import with_progress
from data_modules.wording import counted
from lit_sft.arena.comparisons import TIE, Comparisons
from lit_sft.votes import Side, Vote, VoterKind, read_votes

Voters = Literal["all", "people", "judges"]
"""Whose votes count."""

PEOPLE = "people"

_OUTCOMES = {"left": 1.0, "right": 0.0, "tie": TIE, "both_bad": TIE}

_LONGEST_RATIO = 4.0
"""Beyond 16 times the length, more length has no more effect, so that a few empty answers do not decide it."""

KINDS: dict[Voters, tuple[VoterKind, ...]] = {"people": ("person",), "judges": ("judge",), "all": ("person", "judge")}
"""Kinds of voters whose votes count."""

_Name = TypeVar("_Name", bound=Hashable)


class _Numbers(Generic[_Name]):
    """Numbers names in the order in which they come."""

    def __init__(self) -> None:
        self.names: dict[_Name, int] = {}

    def __getitem__(self, name: _Name) -> int:
        return self.names.setdefault(name, len(self.names))


@dataclass(frozen=True)
class Ballots:
    """Votes, and what a reader should know about them.

    Attributes:
        groups: Comparisons by voters: `people`, or `judge NAME`. All have the same players.
        notes: What was left out, replaced or told apart, a sentence each.
        sampling: How many different sampling settings each player's answers had.
    """

    groups: dict[str, Comparisons]
    notes: list[str]
    sampling: dict[str, int]


@dataclass
class _Collected:
    rows: dict[str, tuple[str, int, int, float, float, int, int, bool, bool]] = field(default_factory=dict)
    players: _Numbers[tuple[str, str]] = field(default_factory=_Numbers)
    voters: _Numbers[tuple[str, str]] = field(default_factory=_Numbers)
    prompts: _Numbers[str] = field(default_factory=_Numbers)
    sampling: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    unfinished: set[str] = field(default_factory=set)
    num_replaced: int = 0

    def add(self, vote: Vote) -> None:
        left, right = self._player(vote.left), self._player(vote.right)
        self.num_replaced += vote.id in self.rows
        self.unfinished.discard(vote.id)
        if vote.left.is_unfinished or vote.right.is_unfinished:
            self.unfinished.add(vote.id)
        self.rows[vote.id] = (
            PEOPLE if vote.voter.kind == "person" else f"judge {vote.voter.name}",
            left,
            right,
            _OUTCOMES[vote.winner],
            _length_ratio(vote),
            self.voters[vote.voter.kind, vote.voter.name],
            self.prompts[vote.prompt_key],
            vote.winner == "both_bad",
            vote.is_blind,
        )

    def _player(self, side: Side) -> int:
        key = side.model, side.digest
        self.sampling.setdefault(key, set()).add(repr(sorted(side.sampling.items())))
        return self.players[key]


def read_ballots(paths: Iterable[Path], voters: Voters = "all") -> Ballots:
    """Read files of votes.

    Args:
        paths: The files.
        voters: Whose votes count.

    Raises:
        UserError: If a file cannot be read, a line is not a vote, or there are no votes.
    """
    collected, damaged, num_others = _Collected(), list[str](), 0
    paths = list(paths)
    for path in paths:
        for vote in with_progress(read_votes(path, damaged.append), f"reading {path.name}", "votes"):
            if vote.voter.kind in KINDS[voters]:
                collected.add(vote)
            else:
                num_others += 1
    if not collected.rows:
        whose = "" if voters == "all" else f" by {voters}"
        unread = "".join(f" {note}" for note in _about_damage(damaged))
        raise UserError(f"{', '.join(map(str, paths))}: no votes{whose}; expected at least one.{unread}")
    names = _labels(collected.players)
    notes = [
        *_about_damage(damaged),
        *([f"{counted(num_others, 'vote')} by other voters not counted."] if num_others else []),
        *_about_votes(collected),
        *_about_names(collected.players),
    ]
    sampling = {names[number]: len(collected.sampling[key]) for key, number in collected.players.names.items()}
    return Ballots(_groups(collected, names), notes, sampling)


def _groups(collected: _Collected, names: tuple[str, ...]) -> dict[str, Comparisons]:
    """Comparisons by voters, people first."""
    rows: dict[str, list[tuple[int, int, float, float, int, int, bool, bool]]] = {}
    for group, *row in collected.rows.values():
        rows.setdefault(group, []).append(tuple(row))  # type: ignore[arg-type]
    found = {}
    for group in sorted(rows, key=lambda name: (name != PEOPLE, name)):
        left, right, outcome, length, voter, prompt, is_bad, _ = (
            np.array(column) for column in zip(*rows[group], strict=True)
        )
        found[group] = Comparisons(names, left, right, outcome, length, voter, prompt, is_bad)
    return found


def _length_ratio(vote: Vote) -> float:
    ratio = math.log2((1 + len(vote.left.answer)) / (1 + len(vote.right.answer)))
    return max(-_LONGEST_RATIO, min(_LONGEST_RATIO, ratio))


def _labels(players: _Numbers[tuple[str, str]]) -> tuple[str, ...]:
    """Names of players; with their digest where a name has several."""
    names = [name for name, _ in players.names]
    return tuple(
        name if names.count(name) == 1 else f"{name} ({digest[:8] or 'no digest'})" for name, digest in players.names
    )


def _about_damage(damaged: list[str]) -> list[str]:
    if not damaged:
        return []
    return [f"{counted(len(damaged), 'half-written line')} left out; the first: {damaged[0]}"]


def _about_votes(collected: _Collected) -> list[str]:
    notes = []
    if collected.num_replaced:
        notes.append(f"{counted(collected.num_replaced, 'vote')} replaced by a later one with the same id.")
    if num := sum(not row[-1] for row in collected.rows.values()):
        notes.append(f"{counted(num, 'vote')} by voters who knew which model wrote which answer.")
    if num := len(collected.unfinished):
        notes.append(f"{counted(num, 'vote')} on an answer that was stopped or cut; they count like the others.")
    return notes


def _about_names(players: _Numbers[tuple[str, str]]) -> list[str]:
    digests: dict[str, int] = {}
    for name, _ in players.names:
        digests[name] = digests.get(name, 0) + 1
    return [
        f"“{name}” was {num} different models, which are rated separately." for name, num in digests.items() if num > 1
    ]
