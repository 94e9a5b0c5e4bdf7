"""What stays of a conversation that is too long: which exchanges, and then which tokens of them.

Choosing exchanges needs the length of many runs of them. A run's length is computed from those of single exchanges and
of neighbouring pairs, so that a conversation of any length is rendered a fixed number of times, not once per turn.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from data_modules.records.conversation import Conversation, Turn
from data_modules.rendering.segments import Segment, SegmentKind


class Measure(Protocol):
    """Measures one conversation and parts of it."""

    def length(self, part: Conversation) -> int:
        """Tokens of a part when rendered and encoded. Raises ValueError if the template refuses it."""

    def least(self, turn: Turn) -> int:
        """Tokens of what a turn says, without what the template adds."""


_QUESTION_SHARE = 4
"""Truncation leaves a question 1/4 of the limit before it takes from the answer."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A segment and its ids."""

    segment: Segment
    ids: list[int]


def length(pieces: Iterable[Piece]) -> int:
    """Number of tokens."""
    return sum(len(piece.ids) for piece in pieces)


def newest_that_fits(conversation: Conversation, limit: int, measure: Measure) -> list[Conversation]:
    """Drop the oldest exchanges, as few as possible; the last one always stays, even if it does not fit.

    Args:
        conversation: Not a document; longer than the limit.
        limit: Most tokens.
        measure: Measures it.

    Returns:
        One conversation.
    """
    exchanges = conversation.exchanges()
    if len(exchanges) == 1:
        return [conversation]
    try:
        first = _first_that_fits(_RunLengths(conversation, measure), len(exchanges), limit)
    except ValueError:
        first = None  # the template refuses a part of it: only a scan tells whether that part matters
    if first is None:
        return [_scan_for_newest(conversation, limit, measure)]
    return [conversation.with_exchanges(exchanges[first:])]


def runs_that_fit(conversation: Conversation, limit: int, measure: Measure) -> list[Conversation]:
    """Cut a conversation between exchanges; each part takes as many as fit, at least one. All repeat the system turn.

    Args:
        conversation: Not a document; longer than the limit.
        limit: Most tokens.
        measure: Measures it.
    """
    exchanges = conversation.exchanges()
    if len(exchanges) == 1:
        return [conversation]
    try:
        starts = _starts_of_runs(_RunLengths(conversation, measure), len(exchanges), limit)
    except ValueError:
        starts = None
    if starts is None:
        return _scan_for_runs(conversation, limit, measure)
    stops = [*starts[1:], len(exchanges)]
    return [conversation.with_exchanges(exchanges[a:b]) for a, b in zip(starts, stops, strict=True)]


class _RunLengths:
    """Lengths of runs of exchanges, by addition.

    The sum is exact for templates whose text between two turns depends only on these turns. Ours are such; for a
    tokenizer's own template `is_exact` compares a sum with the real length.

    Args:
        conversation: Whose exchanges.
        measure: Measures it.
    """

    def __init__(self, conversation: Conversation, measure: Measure) -> None:
        self._exchanges = conversation.exchanges()
        self._conversation, self._measure = conversation, measure
        self._real: dict[tuple[int, int], int] = {}

    def real(self, start: int, stop: int) -> int:
        """The length of exchanges `start` to `stop`, as rendered."""
        if (start, stop) not in self._real:
            run = self._conversation.with_exchanges(self._exchanges[start:stop])
            self._real[start, stop] = self._measure.length(run)
        return self._real[start, stop]

    def single(self, index: int) -> int:
        """The length of one exchange."""
        return self.real(index, index + 1)

    def added(self, index: int) -> int:
        """How much longer an exchange becomes by the one after it."""
        return self.real(index, index + 2) - self.single(index)

    def is_exact(self, start: int, stop: int, expected: int) -> bool:
        """Whether a sum is the real length."""
        return self.real(start, stop) == expected


def _first_that_fits(lengths: _RunLengths, count: int, limit: int) -> int | None:
    """The first exchange of the longest end of a conversation that fits, else the last; None if sums are not exact."""
    first, tail, expected = count - 1, 0, {count - 1: lengths.single(count - 1)}
    # backwards from the end; once the later exchanges alone are too long, nothing older can fit
    for index in range(count - 2, -1, -1):
        tail += lengths.added(index)
        expected[index] = lengths.single(index) + tail
        if expected[index] <= limit:
            first = index
        if tail > limit:
            break
    # the choice holds if what is kept fits, and one exchange more does not
    checked = [index for index in (first, first - 1) if index in expected]
    return first if all(lengths.is_exact(index, count, expected[index]) for index in checked) else None


def _starts_of_runs(lengths: _RunLengths, count: int, limit: int) -> list[int] | None:
    """Where each run begins; None if sums are not exact."""
    starts, expected = [0], lengths.single(0)
    for index in range(1, count):
        longer = expected + lengths.added(index - 1)
        if longer > limit:
            start = starts[-1]
            if not (lengths.is_exact(start, index, expected) and lengths.is_exact(start, index + 1, longer)):
                return None
            starts.append(index)
            longer = lengths.single(index)
        expected = longer
    return starts if lengths.is_exact(starts[-1], count, expected) else None


def _scan_for_newest(conversation: Conversation, limit: int, measure: Measure) -> Conversation:
    exchanges = conversation.exchanges()
    for oldest in range(_first_that_may_fit(exchanges, limit, measure), len(exchanges)):
        shorter = conversation.with_exchanges(exchanges[oldest:])
        if measure.length(shorter) <= limit:
            break
    return shorter


def _first_that_may_fit(exchanges: list[tuple[Turn, ...]], limit: int, measure: Measure) -> int:
    """The first exchange from which on what is said fits, whatever the template adds to it; else the last."""
    first, least = len(exchanges), 0
    while first and least <= limit:
        first -= 1
        least += sum(map(measure.least, exchanges[first]))
    return min(first + (least > limit), len(exchanges) - 1)


def _scan_for_runs(conversation: Conversation, limit: int, measure: Measure) -> list[Conversation]:
    runs, start, exchanges = [], 0, conversation.exchanges()
    for stop in range(1, len(exchanges)):
        if measure.length(conversation.with_exchanges(exchanges[start : stop + 1])) > limit:
            runs.append(conversation.with_exchanges(exchanges[start:stop]))
            start = stop
    return [*runs, conversation.with_exchanges(exchanges[start:])]


def shorten(pieces: list[Piece], limit: int) -> list[Piece] | None:
    """Shorten to the limit, context first and the answer last; None if not even one token of it would be left."""
    for step in (_take_closing, _take_context, _take_question, _take_system, _take_answer, _take_all_question):
        if length(pieces) <= limit:
            return pieces
        pieces = step(pieces, limit)
    return pieces if length(pieces) <= limit else None


def _cut(pieces: list[Piece], limit: int, *, keep: int, chosen: list[bool]) -> list[Piece]:
    """Take what is over the limit from the ends of the chosen pieces, the first one first, leaving `keep` in each."""
    excess, shorter = length(pieces) - limit, []
    for piece, is_chosen in zip(pieces, chosen, strict=True):
        take = max(0, min(excess, len(piece.ids) - keep)) if is_chosen else 0
        excess -= take
        shorter.append(replace(piece, ids=piece.ids[: len(piece.ids) - take]))
    return shorter


def _take_closing(pieces: list[Piece], limit: int) -> list[Piece]:
    """The newline after the last end token is the cheapest thing to lose."""
    is_closing = pieces[-1].segment.kind is SegmentKind.TEMPLATE and SegmentKind.FINAL_ANSWER in {
        piece.segment.kind for piece in pieces
    }
    return pieces[:-1] if is_closing else pieces


def _take_context(pieces: list[Piece], limit: int) -> list[Piece]:
    return _cut(pieces, limit, keep=0, chosen=[piece.segment.context for piece in pieces])


def _take_question(pieces: list[Piece], limit: int) -> list[Piece]:
    return _cut(pieces, limit, keep=max(1, limit // _QUESTION_SHARE), chosen=_of_kind(pieces, SegmentKind.USER))


def _take_system(pieces: list[Piece], limit: int) -> list[Piece]:
    return _cut(pieces, limit, keep=0, chosen=_of_kind(pieces, SegmentKind.SYSTEM))


def _take_answer(pieces: list[Piece], limit: int) -> list[Piece]:
    """A cut answer loses its end token and what follows: the text does not end there."""
    answers = _of_kind(pieces, SegmentKind.FINAL_ANSWER)
    if not any(answers):
        return pieces
    pieces = pieces[: answers.index(True) + 1]
    return _cut(pieces, limit, keep=1, chosen=answers[: len(pieces)])


def _take_all_question(pieces: list[Piece], limit: int) -> list[Piece]:
    return _cut(pieces, limit, keep=0, chosen=_of_kind(pieces, SegmentKind.USER))


def _of_kind(pieces: list[Piece], kind: SegmentKind) -> list[bool]:
    return [piece.segment.kind is kind for piece in pieces]
