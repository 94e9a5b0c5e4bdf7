"""Votes as preference pairs, for training by preference (DPO and the like)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lit_sft.arena.ballots import KINDS, Voters
from lit_sft.files import write_lines
from lit_sft.votes import Message, Vote, VoterKind, read_votes


@dataclass
class _Tally:
    """Votes on two answers to one prompt.

    Attributes:
        prompt: The prompt.
        models: By answer.
        votes: By kind of voter and answer; ties and both bad by their name.
        is_finished: Whether no answer is known to be stopped or cut.
    """

    prompt: tuple[Message, ...]
    models: dict[str, str] = field(default_factory=dict)
    votes: dict[VoterKind, Counter[str | None]] = field(default_factory=dict)
    is_finished: bool = True


@dataclass(frozen=True)
class PairCounts:
    """What became of the answers that were voted on.

    Attributes:
        num_written: Pairs or answers written.
        left_out: Number of the others, by reason.
    """

    num_written: int
    left_out: dict[str, int]


def write_pairs(paths: Iterable[Path], target: Path, voters: Voters = "all") -> PairCounts:
    """Write a line with `prompt`, `chosen` and `rejected` for each pair of answers with a preference.

    All votes on the same two answers make one pair, whichever side they were on; the majority decides. If people and
    judges voted on a pair, only people count. Answers that were stopped or cut make no pair: a model would learn to
    write half an answer, or to avoid the beginning of one that might have become good.

    Args:
        paths: Files of votes.
        target: The file to write.
        voters: Whose votes count.

    Raises:
        UserError: If a file cannot be read, or a line is not a vote.
    """
    rows, left_out = [], Counter[str]()
    for tally in _tallies(counted_votes(paths, voters)):
        row = _row(tally)
        if isinstance(row, str):
            left_out[row] += 1
        else:
            rows.append(row)
    write_lines(target, rows)
    return PairCounts(len(rows), dict(left_out))


def counted_votes(paths: Iterable[Path], voters: Voters) -> Iterable[Vote]:
    """The votes in files that count, each once: the last of those with one id.

    Args:
        paths: Files of votes.
        voters: Whose votes count.

    Raises:
        UserError: If a file cannot be read, or a line is not a vote.
    """
    votes: dict[str, Vote] = {}
    for path in paths:
        for vote in read_votes(path, lambda _: None):
            if vote.voter.kind in KINDS[voters]:
                votes[vote.id] = vote
    return votes.values()


def _tallies(votes: Iterable[Vote]) -> Sequence[_Tally]:
    found: dict[tuple[str, frozenset[str]], _Tally] = {}
    for vote in votes:
        left, right = vote.left.answer, vote.right.answer
        tally = found.setdefault((vote.prompt_key, frozenset((left, right))), _Tally(vote.prompt))
        tally.models |= {left: vote.left.model, right: vote.right.model}
        tally.is_finished &= not (vote.left.is_unfinished or vote.right.is_unfinished)
        chosen = {"left": left, "right": right}.get(vote.winner)
        tally.votes.setdefault(vote.voter.kind, Counter())[chosen] += 1
    return list(found.values())


def _row(tally: _Tally) -> dict[str, Any] | str:
    """The line of a pair, or why there is none."""
    if len(tally.models) == 1:
        return "both answers are the same"
    if not tally.is_finished:
        return "an answer was stopped or cut"
    votes = tally.votes.get("person") or tally.votes["judge"]
    one, other = sorted(tally.models, key=lambda answer: -votes[answer])
    if votes[one] <= max(votes[other], votes[None]):
        return "no majority for one of the answers"
    if not one.strip():
        return "the preferred answer is empty"
    return {
        "prompt": [{"role": message.role, "content": message.content} for message in tally.prompt],
        "chosen": [{"role": "assistant", "content": one}],
        "rejected": [{"role": "assistant", "content": other}],
        "chosen_model": tally.models[one],
        "rejected_model": tally.models[other],
        "votes": {"chosen": votes[one], "rejected": votes[other], "neither": votes[None]},
    }
