"""Shortens conversations that are too long: first chooses the exchanges to keep, then cuts their tokens.

Choosing exchanges needs the length of many runs of exchanges. The length of a run is computed from those of single
exchanges and adjacent pairs, so that the whole conversation is rendered a few times, not once per turn.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from data_modules.encoding.strings import EncodedSegment, length
from data_modules.errors import UserError
from data_modules.records.conversation import Conversation
from data_modules.rendering.segments import ASSISTANT_KINDS, Segment, SegmentKind

Encode = Callable[[list[Segment]], list[EncodedSegment]]


class Measure(Protocol):
    """Measures the parts of one conversation."""

    def length(self, part: Conversation) -> int:
        """Tokens in a part when rendered and encoded. Raises UserError if the template rejects it."""


_QUESTION_SHARE = 4
"""A question keeps 1/4 of the limit before the answer is cut."""


def newest_that_fits(conversation: Conversation, limit: int, measure: Measure) -> list[Conversation]:
    """Drop as few of the oldest exchanges as possible. The last one always stays, even if it does not fit.

    Args:
        conversation: Not a document; longer than the limit.
        limit: Maximum number of tokens.
        measure: Measures it.

    Returns:
        A list of one conversation.
    """
    exchanges = conversation.exchanges()
    if len(exchanges) == 1:
        return [conversation]
    try:
        first = _first_that_fits(_RunLengths(conversation, measure), len(exchanges), limit)
    except UserError:
        first = None  # the template rejects some exchange; the scan may not need that one
    if first is None:
        return [_scan_for_newest(conversation, limit, measure)]
    return [conversation.with_exchanges(exchanges[first:])]


def runs_that_fit(conversation: Conversation, limit: int, measure: Measure) -> list[Conversation]:
    """Split a conversation between exchanges. Each part repeats the system turn and takes as many exchanges as fit.

    Args:
        conversation: Not a document; longer than the limit.
        limit: Maximum number of tokens.
        measure: Measures it.
    """
    exchanges = conversation.exchanges()
    if len(exchanges) == 1:
        return [conversation]
    try:
        starts = _starts_of_runs(_RunLengths(conversation, measure), len(exchanges), limit)
    except UserError:
        starts = None
    if starts is None:
        return _scan_for_runs(conversation, limit, measure)
    stops = [*starts[1:], len(exchanges)]
    return [conversation.with_exchanges(exchanges[a:b]) for a, b in zip(starts, stops, strict=True)]


class _RunLengths:
    """Computes the lengths of runs of exchanges by addition.

    The sum is exact if the template's text between two turns depends on these turns only. Our templates guarantee it;
    for a tokenizer's own template, `is_exact` compares a sum with the real length.

    Args:
        conversation: The conversation.
        measure: Measures it.
    """

    def __init__(self, conversation: Conversation, measure: Measure) -> None:
        self._exchanges = conversation.exchanges()
        self._conversation, self._measure = conversation, measure
        self._real: dict[tuple[int, int], int] = {}

    def real(self, start: int, stop: int) -> int:
        """The rendered length of exchanges `start` to `stop`."""
        if (start, stop) not in self._real:
            run = self._conversation.with_exchanges(self._exchanges[start:stop])
            self._real[start, stop] = self._measure.length(run)
        return self._real[start, stop]

    def single(self, index: int) -> int:
        """The length of one exchange."""
        return self.real(index, index + 1)

    def added(self, index: int) -> int:
        """How many tokens the next exchange adds to an exchange."""
        return self.real(index, index + 2) - self.single(index)

    def is_exact(self, start: int, stop: int, expected: int) -> bool:
        """Whether a sum equals the real length."""
        return self.real(start, stop) == expected


def _first_that_fits(lengths: _RunLengths, count: int, limit: int) -> int | None:
    """The first exchange from which the rest fits, at worst the last; None if sums are not exact."""
    first, tail, expected = count - 1, 0, {count - 1: lengths.single(count - 1)}
    # from the end; once the later exchanges alone are too long, nothing older can fit
    for index in range(count - 2, -1, -1):
        tail += lengths.added(index)
        expected[index] = lengths.single(index) + tail
        if expected[index] <= limit:
            first = index
        if tail > limit:
            break
    # the choice is right if the kept exchanges fit and one more does not
    checked = [index for index in (first, first - 1) if index in expected]
    return first if all(lengths.is_exact(index, count, expected[index]) for index in checked) else None


def _starts_of_runs(lengths: _RunLengths, count: int, limit: int) -> list[int] | None:
    """Where each run starts; None if sums are not exact."""
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
    """Search from the end, so that the work depends on what fits and not on the length of the conversation."""
    exchanges = conversation.exchanges()

    def newest(count: int) -> Conversation:
        return conversation.with_exchanges(exchanges[len(exchanges) - count :])

    return newest(_most_that_fit(len(exchanges), limit, lambda count: measure.length(newest(count))))


def _scan_for_runs(conversation: Conversation, limit: int, measure: Measure) -> list[Conversation]:
    rest, runs = conversation.exchanges(), []

    def run(count: int) -> Conversation:
        return conversation.with_exchanges(rest[:count])

    while rest:
        most = _most_that_fit(len(rest), limit, lambda count: measure.length(run(count)))
        runs.append(run(most))
        rest = rest[most:]
    return runs


def _most_that_fit(count: int, limit: int, length_of: Callable[[int], int]) -> int:
    """The largest number up to `count` whose length is within the limit, at least 1. More are never shorter."""
    most, step = 1, 1
    while most < count and length_of(min(most + step, count)) <= limit:
        most, step = min(most + step, count), 2 * step
    between = range(most + 1, min(most + step, count))
    return most + bisect_left(between, True, key=lambda number: length_of(number) > limit)


def shorten(encoded: list[EncodedSegment], limit: int, encode: Encode) -> list[EncodedSegment] | None:
    """Shorten to the limit, context first, the answer last; None if nothing would be left of the answer.

    A shortened prompt is encoded again, because it is still one string. An answer just loses its last tokens.

    Args:
        encoded: The segments of a conversation or prompt.
        limit: Maximum number of tokens.
        encode: Encodes segments.
    """
    for step in (_take_closing, _take_context, _take_question, _take_system, _take_answer, _take_all_question):
        if length(encoded) <= limit:
            return encoded
        encoded = step(encoded, limit, encode)
    return encoded if length(encoded) <= limit else None


def _take_closing(encoded: list[EncodedSegment], limit: int, encode: Encode) -> list[EncodedSegment]:
    """Drop the newline after the last end token, the least useful token."""
    is_closing = encoded[-1].segment.kind is SegmentKind.TEMPLATE and any(_is_final_answer(encoded))
    return encoded[:-1] if is_closing else encoded


def _take_context(encoded: list[EncodedSegment], limit: int, encode: Encode) -> list[EncodedSegment]:
    return _cut_prompt(encoded, limit, encode, keep=0, chosen=lambda segment: segment.context)


def _take_question(encoded: list[EncodedSegment], limit: int, encode: Encode) -> list[EncodedSegment]:
    keep = max(1, limit // _QUESTION_SHARE)
    return _cut_prompt(encoded, limit, encode, keep=keep, chosen=_is_question)


def _take_system(encoded: list[EncodedSegment], limit: int, encode: Encode) -> list[EncodedSegment]:
    return _cut_prompt(encoded, limit, encode, keep=0, chosen=lambda segment: segment.kind is SegmentKind.SYSTEM)


def _take_answer(encoded: list[EncodedSegment], limit: int, encode: Encode) -> list[EncodedSegment]:
    """Cut the answer. It also loses its end token and what follows: the text does not end there."""
    if not any(answers := _is_final_answer(encoded)):
        return encoded
    first = answers.index(True)
    left, shorter = max(1, limit - length(encoded[:first])), encoded[:first]
    for item in encoded[first : len(answers) - answers[::-1].index(True)]:
        shorter += [replace(item, ids=item.ids[:left])] if left else []
        left -= min(left, len(item.ids))
    return shorter


def _take_all_question(encoded: list[EncodedSegment], limit: int, encode: Encode) -> list[EncodedSegment]:
    return _cut_prompt(encoded, limit, encode, keep=0, chosen=_is_question)


def _cut_prompt(
    encoded: list[EncodedSegment], limit: int, encode: Encode, *, keep: int, chosen: Callable[[Segment], bool]
) -> list[EncodedSegment]:
    """Cut the ends of the chosen segments, first to last, until all fits or `keep` tokens are left in each."""
    while (excess := length(encoded) - limit) > 0:
        long = (at for at, item in enumerate(encoded) if chosen(item.segment) and len(item.ids) > keep)
        place = next(long, None)
        if place is None:
            break
        item = encoded[place]
        left = max(keep, len(item.ids) - excess)
        text = item.segment.text[: item.starts[left]] if left else ""
        # shorter at every turn, even if it is encoded as more tokens
        encoded = _with_text(encoded, place, text, encode)
    return encoded


def _with_text(encoded: list[EncodedSegment], place: int, text: str, encode: Encode) -> list[EncodedSegment]:
    """Replace the text of a segment and encode again; the answer, which may be cut already, stays as it is."""
    segments = [item.segment for item in encoded]
    segments[place] = replace(segments[place], text=text)
    # answers that are only read are part of the prompt, whose tokens may begin elsewhere now
    emitted = (item for item in encoded if item.segment.kind in ASSISTANT_KINDS and not item.segment.is_read)
    cut = {item.segment: item for item in emitted}
    return [cut.get(item.segment, item) for item in encode([part for part in segments if part.text])]


def _is_final_answer(encoded: list[EncodedSegment]) -> list[bool]:
    """Which segments are the last turn's answer, trained or not; none in a bare prompt."""
    last = encoded[-1].segment.turn
    return [item.segment.turn == last and item.segment.kind in ASSISTANT_KINDS for item in encoded]


def _is_question(segment: Segment) -> bool:
    return segment.kind is SegmentKind.USER
