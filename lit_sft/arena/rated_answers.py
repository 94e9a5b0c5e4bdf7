"""Votes as answers rated one by one, for training on good and bad answers that need no counterpart (KTO, APO-zero)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lit_sft.arena.ballots import Voters
from lit_sft.arena.preference_pairs import PairCounts, counted_votes
from lit_sft.files import write_lines
from lit_sft.votes import Message, VoterKind, Winner

_GOOD: dict[Winner, tuple[bool, bool]] = {
    "left": (True, False),
    "right": (False, True),
    "tie": (True, True),
    "both_bad": (False, False),
}
"""What a vote says of the left and of the right answer."""


@dataclass
class _Tally:
    """Votes on one answer to a prompt.

    Attributes:
        prompt: The prompt.
        answer: The answer.
        votes: By kind of voter, how often it is good and bad.
        is_finished: Whether it is not known to be stopped or cut.
    """

    prompt: tuple[Message, ...]
    answer: str
    votes: dict[VoterKind, Counter[bool]] = field(default_factory=dict)
    is_finished: bool = True


def write_labels(paths: Iterable[Path], target: Path, voters: Voters = "all") -> PairCounts:
    """Write a line with `prompt`, `completion` and `label` for each answer that was voted on.

    An answer is good if it was preferred or tied, and bad if the other one was preferred or both were bad; the majority
    of the votes decides. If people and judges voted on an answer, only people count.

    Args:
        paths: Files of votes.
        target: The file to write.
        voters: Whose votes count.

    Raises:
        UserError: If a file cannot be read, or a line is not a vote.
    """
    tallies: dict[tuple[str, str], _Tally] = {}
    for vote in counted_votes(paths, voters):
        for side, is_good in zip((vote.left, vote.right), _GOOD[vote.winner], strict=True):
            tally = tallies.setdefault((vote.prompt_key, side.answer), _Tally(vote.prompt, side.answer))
            tally.votes.setdefault(vote.voter.kind, Counter())[is_good] += 1
            tally.is_finished &= not side.is_unfinished
    rows, left_out = [], Counter[str]()
    for tally in tallies.values():
        row = _row(tally)
        if isinstance(row, str):
            left_out[row] += 1
        else:
            rows.append(row)
    write_lines(target, rows)
    return PairCounts(len(rows), dict(left_out))


def _row(tally: _Tally) -> dict[str, Any] | str:
    """The line of an answer, or why there is none."""
    if not tally.is_finished:
        return "the answer was stopped or cut"
    if not tally.answer.strip():
        return "the answer is empty"
    votes = tally.votes.get("person") or tally.votes["judge"]
    if votes[True] == votes[False]:
        return "as often good as bad"
    return {
        "label": votes[True] > votes[False],
        "prompt": [{"role": message.role, "content": message.content} for message in tally.prompt],
        "completion": [{"role": "assistant", "content": tally.answer}],
        "votes": {"good": votes[True], "bad": votes[False]},
    }
