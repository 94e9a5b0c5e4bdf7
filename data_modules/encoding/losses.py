"""What became of every token of a conversation that was shortened: kept, or lost for a named reason.

A conversation is compared with its examples turn by turn, and every token counts under the kind that it has in the
whole conversation: splitting makes other answers final, but that saves no token of the true final answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from data_modules.encoding.strings import EncodedSegment
from data_modules.records.conversation import Conversation
from data_modules.rendering.masking import LossMask
from data_modules.rendering.segments import SegmentKind

Tokens = Counter[tuple[int, SegmentKind]]
"""Number of tokens by turn and kind."""


class Loss(StrEnum):
    """Why tokens are in no example."""

    CONVERSATION = "conversation_dropped"
    """The conversation is too long and was left out."""
    TURN = "turn_dropped"
    """The turn was left out: it is older than what fits, or nothing would be left of its answer."""
    CUT = "message_cut"
    """The turn is in an example, but its end was cut."""
    RENDERED = "rendered_differently"
    """The template or the tokenizer needs fewer tokens for the turn in a part: text between turns, for example."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a conversation and the example made of it.

    Attributes:
        turns: For each turn of the part, its index in the whole conversation.
        complete: The part before it was cut.
        kept: The example.
    """

    turns: Sequence[int]
    complete: Sequence[EncodedSegment]
    kept: Sequence[EncodedSegment]


@dataclass(frozen=True)
class Account:
    """The tokens of one conversation, or of several, by the kind that they have in the whole conversation.

    For every kind, read = kept + everything lost. The examples hold kept + added tokens.

    Attributes:
        read: Tokens before shortening.
        kept: Those of them that are in an example.
        lost: Those that are in none, by reason.
        added: Tokens of the examples that the conversation does not have: repeated system turns, openings of parts.
    """

    read: Counter[SegmentKind] = field(default_factory=Counter)
    kept: Counter[SegmentKind] = field(default_factory=Counter)
    lost: dict[Loss, Counter[SegmentKind]] = field(default_factory=lambda: {reason: Counter() for reason in Loss})
    added: Counter[SegmentKind] = field(default_factory=Counter)

    @property
    def all_lost(self) -> Counter[SegmentKind]:
        """Tokens lost for any reason."""
        return sum(self.lost.values(), Counter[SegmentKind]())

    def by_kind(self) -> dict[str, Any]:
        """As plain JSON values, by kind; kinds without tokens are left out."""
        kinds = (kind for kind in SegmentKind if self.read[kind] or self.added[kind])
        return {kind.name.lower(): {**self._of([kind]), "added": self.added[kind]} for kind in kinds}

    def under(self, mask: LossMask) -> dict[str, Any]:
        """The tokens that a mask supervises in whole conversations, as plain JSON values."""
        return self._of([kind for kind in SegmentKind if mask.supervises(kind)])

    def _of(self, kinds: Sequence[SegmentKind]) -> dict[str, Any]:
        def number(counts: Counter[SegmentKind]) -> int:
            return sum(counts[kind] for kind in kinds)

        lost = {reason.value: number(counts) for reason, counts in self.lost.items()}
        return {"read": number(self.read), "kept": number(self.kept), "lost": lost}

    def is_shortened(self) -> bool:
        """Whether text is missing."""
        return any(counts.total() for reason, counts in self.lost.items() if reason is not Loss.RENDERED)

    def add(self, other: Account) -> None:
        """Add the tokens of other conversations."""
        for mine, others in ((self.read, other.read), (self.kept, other.kept), (self.added, other.added)):
            mine.update(others)
        for reason, counts in other.lost.items():
            self.lost[reason].update(counts)


def account_of(whole: Sequence[EncodedSegment], parts: Sequence[Part]) -> Account:
    """What became of the tokens of a conversation.

    Args:
        whole: The conversation before shortening.
        parts: Its parts; none if it was left out.
    """
    read, account = _tokens(whole), Account()
    if len(parts) == 1 and parts[0].kept is whole:  # most conversations fit
        for (_, kind), count in read.items():
            account.read[kind] += count
            account.kept[kind] += count
        return account
    kept, complete, present = Tokens(), Tokens(), set[int]()
    for part in parts:
        # a turn that several parts repeat counts once; blocks of a document do not overlap
        kept = _union(kept, _of_whole(part.kept, part.turns, read), is_text=_is_text(whole))
        complete = _union(complete, _of_whole(part.complete, part.turns, read), is_text=_is_text(whole))
        present.update(part.turns)
    for (turn, kind), count in read.items():
        left = min(count, kept[turn, kind])
        entire = max(left, min(count, complete[turn, kind]))
        why = Loss.RENDERED if turn in present else Loss.TURN if parts else Loss.CONVERSATION
        account.read[kind] += count
        account.kept[kind] += left
        account.lost[Loss.CUT][kind] += entire - left
        account.lost[why][kind] += count - entire
    for part in parts:
        for (_, kind), count in _of_whole(part.kept, part.turns, read).items():
            account.added[kind] += count
    account.added.subtract(account.kept)
    return account


def turns_in(part: Conversation, whole: Conversation) -> list[int]:
    """For each turn of a part, its index in the whole conversation; the part has some of its turns, in order."""
    found, index = [], 0
    for turn in part.turns:
        while whole.turns[index] is not turn:
            index += 1
        found.append(index)
        index += 1
    return found


_INSIDE = {
    SegmentKind.FINAL_ANSWER: SegmentKind.ANSWER,
    SegmentKind.FINAL_THINKING: SegmentKind.THINKING,
    SegmentKind.FINAL_TOOL_CALL: SegmentKind.TOOL_CALL,
}
"""The kinds of a conversation's end, and what they are anywhere else."""


def _of_whole(part: Iterable[EncodedSegment], turns: Sequence[int], whole: Tokens) -> Tokens:
    """The tokens of a part under their turn and kind in the whole conversation."""
    counts = Tokens()
    for item in part:
        turn, kind = turns[item.segment.turn], item.segment.kind
        counts[turn, original_kind(turn, kind, whole)] += len(item.ids)
    return counts


def original_kind(turn: int, kind: SegmentKind, whole: Tokens) -> SegmentKind:
    """The kind that tokens of a part have in the whole conversation.

    Args:
        turn: Their turn in the whole conversation.
        kind: Their kind in the part.
        whole: The tokens of the whole conversation.
    """
    return kind if (turn, kind) in whole else _INSIDE.get(kind, kind)


def _tokens(encoded: Iterable[EncodedSegment]) -> Tokens:
    counts = Tokens()
    for item in encoded:
        counts[item.segment.turn, item.segment.kind] += len(item.ids)
    return counts


def _union(one: Tokens, other: Tokens, *, is_text: bool) -> Tokens:
    return one + other if is_text else one | other


def _is_text(encoded: Sequence[EncodedSegment]) -> bool:
    return bool(encoded) and encoded[0].segment.kind is SegmentKind.TEXT
