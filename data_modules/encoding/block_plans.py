"""How documents are cut and put together in blocks: one plan for each policy of `text_blocks`."""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from data_modules.progress import with_progress

BlockPolicy = Literal["stream", "best_fit", "sentence_end", "document"]

Places = npt.NDArray[np.int64]

_WINDOW = 65_536
"""Documents that `best_fit` packs together, which bounds its memory."""

_GAP = 4096
"""Tokens read at once when looking for the end of a long sentence."""


class Tokens(Protocol):
    """The tokens of the documents of a split, one document after the other."""

    @property
    def starts(self) -> Places:
        """Where each document begins, and the end of the last, (documents + 1,)."""

    def sentence_ends(self, start: int, stop: int) -> npt.NDArray[np.bool_]:
        """Whether a sentence ends with each token of a range."""


class Plan(Protocol):
    """Which pieces are in each block; token places are relative to the documents of the plan."""

    def __len__(self) -> int: ...

    def spans(self, index: int) -> list[tuple[int, int]]:
        """Start and end of every piece of a block."""

    def num_tokens(self, index: int) -> int:
        """Tokens in a block."""

    def totals(self) -> tuple[int, int, int, Places]:
        """Tokens kept, documents cut, documents dropped, and every place where a document is cut."""


class Documents:
    """Documents in order, without empty ones, as if their tokens were one stream.

    Attributes:
        begins: First token of each, over all documents of the split, (N,).
        lengths: Tokens of each, (N,).
        offsets: Where each begins in the stream, and the length of the stream, (N + 1,).
    """

    def __init__(self, starts: Places, documents: Places | None) -> None:
        lengths = np.diff(starts)
        if documents is not None:
            lengths = lengths[documents]
        begins: Places = np.asarray(starts[:-1] if documents is None else starts[documents])
        filled = lengths > 0
        if not filled.all():
            begins, lengths = begins[filled], lengths[filled]
        self.begins, self.lengths = begins, lengths
        self.offsets: Places = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

    def __len__(self) -> int:
        return len(self.begins)

    @property
    def num_tokens(self) -> int:
        """Tokens of all documents."""
        return int(self.offsets[-1])


class _Stream:
    """Every block but the last is full; documents are cut anywhere."""

    def __init__(self, documents: Documents, size: int, shards: Tokens, keep_rest: bool) -> None:
        self.documents, self.size = documents, size

    def __len__(self) -> int:
        return -(-self.documents.num_tokens // self.size)

    def spans(self, index: int) -> list[tuple[int, int]]:
        offsets, found = self.documents.offsets, []
        place, end = index * self.size, index * self.size + self.num_tokens(index)
        which = int(np.searchsorted(offsets, place, side="right")) - 1
        while place < end:
            stop = min(end, int(offsets[which + 1]))
            shift = int(self.documents.begins[which]) - int(offsets[which])
            found.append((place + shift, stop + shift))
            place, which = stop, which + 1
        return found

    def num_tokens(self, index: int) -> int:
        return min(self.size, self.documents.num_tokens - index * self.size)

    def totals(self) -> tuple[int, int, int, Places]:
        offsets, borders = self.documents.offsets, np.arange(1, len(self), dtype=np.int64) * self.size
        which = np.searchsorted(offsets, borders, side="right") - 1
        inside = offsets[which] < borders
        which, borders = which[inside], borders[inside]
        cuts = borders - offsets[which] + self.documents.begins[which]
        return self.documents.num_tokens, len(np.unique(which)), 0, cuts


class _FromDocuments:
    """Each document has blocks of its own: one, or with `keep_rest` as many as it takes."""

    def __init__(self, documents: Documents, size: int, shards: Tokens, keep_rest: bool) -> None:
        self.documents, self.size = documents, size
        self.counts = -(-documents.lengths // size) if keep_rest else np.ones(len(documents), dtype=np.int64)
        self.firsts: Places | None = np.concatenate([[0], np.cumsum(self.counts)]) if keep_rest else None

    def __len__(self) -> int:
        return len(self.documents) if self.firsts is None else int(self.firsts[-1])

    def spans(self, index: int) -> list[tuple[int, int]]:
        which, part = index, 0
        if self.firsts is not None:
            which = int(np.searchsorted(self.firsts, index, side="right")) - 1
            part = index - int(self.firsts[which])
        begin, length = int(self.documents.begins[which]), int(self.documents.lengths[which])
        return [(begin + part * self.size, begin + min(length, (part + 1) * self.size))]

    def num_tokens(self, index: int) -> int:
        ((start, stop),) = self.spans(index)
        return stop - start

    def totals(self) -> tuple[int, int, int, Places]:
        documents, size = self.documents, self.size
        is_long = documents.lengths > size
        begins, lengths = documents.begins[is_long], documents.lengths[is_long]
        if self.firsts is not None:
            return documents.num_tokens, len(begins), 0, _inner_cuts(begins, lengths, size)
        return int(np.minimum(documents.lengths, size).sum()), len(begins), 0, begins + size


class _Listed:
    """Blocks whose pieces are listed: 16 bytes each.

    Attributes:
        starts: First token of each piece, (pieces,).
        stops: The token after the last of each piece, (pieces,).
        firsts: First piece of each block, and the number of pieces, (blocks + 1,).
    """

    starts: Places
    stops: Places
    firsts: Places

    def __len__(self) -> int:
        return len(self.firsts) - 1

    def spans(self, index: int) -> list[tuple[int, int]]:
        place = slice(int(self.firsts[index]), int(self.firsts[index + 1]))
        return list(zip(self.starts[place].tolist(), self.stops[place].tolist(), strict=True))

    def num_tokens(self, index: int) -> int:
        place = slice(int(self.firsts[index]), int(self.firsts[index + 1]))
        return int(self.stops[place].sum() - self.starts[place].sum())


class _SentenceEnd(_Listed):
    """Each document has a block that ends with it or with a sentence; with `keep_rest` as many as it takes."""

    def __init__(self, documents: Documents, size: int, shards: Tokens, keep_rest: bool) -> None:
        starts, stops = array("q"), array("q")
        self._cut = self._dropped = 0
        pairs = zip(documents.begins, documents.lengths, strict=True)
        for begin, length in with_progress(pairs, "cutting at sentence ends", "documents", len(documents)):
            before = len(starts)
            for start, stop in _sentence_blocks(shards, int(begin), int(begin + length), size, keep_rest=keep_rest):
                starts.append(start)
                stops.append(stop)
            self._dropped += len(starts) == before
            self._cut += int(length > size)
        self.starts, self.stops = (np.frombuffer(each, dtype=np.int64) for each in (starts, stops))
        self.firsts = np.arange(len(starts) + 1)

    def totals(self) -> tuple[int, int, int, Places]:
        # every cut is at the end of a sentence
        return int((self.stops - self.starts).sum()), self._cut, self._dropped, np.zeros(0, dtype=np.int64)


def _sentence_blocks(shards: Tokens, start: int, stop: int, size: int, *, keep_rest: bool) -> Iterator[tuple[int, int]]:
    """The blocks of one document. What is between two of them is a sentence too long for any."""
    while stop - start > size:
        ends = np.flatnonzero(shards.sentence_ends(start, start + size))
        if len(ends):
            end = start + int(ends[-1]) + 1
            yield start, end
        else:
            end = _end_of_sentence(shards, start + size, stop)
        if not keep_rest:
            return
        start = end
    if start < stop:
        yield start, stop


def _end_of_sentence(shards: Tokens, start: int, stop: int) -> int:
    """The token after the next sentence end, or the end of the document."""
    for place in range(start, stop, _GAP):
        ends = np.flatnonzero(shards.sentence_ends(place, min(place + _GAP, stop)))
        if len(ends):
            return place + int(ends[0]) + 1
    return stop


class _BestFit(_Listed):
    """Documents are packed whole where they fit; long ones are split into full blocks and a rest that is packed."""

    def __init__(self, documents: Documents, size: int, shards: Tokens, keep_rest: bool) -> None:
        self.documents, self.size = documents, size
        windows = [
            _packed_window(documents.begins[first : first + _WINDOW], documents.lengths[first : first + _WINDOW], size)
            for first in with_progress(
                range(0, len(documents), _WINDOW), "packing", "windows of documents", -(-len(documents) // _WINDOW)
            )
        ]
        self.starts, self.stops, counts = (
            np.concatenate([np.zeros(0, dtype=np.int64), *(window[part] for window in windows)]) for part in range(3)
        )
        self.firsts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    def totals(self) -> tuple[int, int, int, Places]:
        is_long = self.documents.lengths > self.size
        cuts = _inner_cuts(self.documents.begins[is_long], self.documents.lengths[is_long], self.size)
        return self.documents.num_tokens, int(is_long.sum()), 0, cuts


def _packed_window(begins: Places, lengths: Places, size: int) -> tuple[Places, Places, Places]:
    """Starts and stops of the pieces of a window, block by block, and the number of pieces in each block."""
    full, rest = np.divmod(lengths, size)
    starts = np.repeat(begins, full) + size * _count_up(full)
    rests = np.flatnonzero(rest)
    rows = packed_rows(rest[rests], size)
    order = np.argsort(rows, kind="stable")
    begin_of_rests = (begins + full * size)[rests[order]]
    return (
        np.concatenate([starts, begin_of_rests]),
        np.concatenate([starts + size, begin_of_rests + rest[rests[order]]]),
        np.concatenate([np.ones(len(starts), dtype=np.int64), np.bincount(rows)]),
    )


def packed_rows(lengths: npt.NDArray[np.integer[Any]], size: int) -> Places:
    """Pack documents into rows: longest first, each into the fullest row with enough room.

    Args:
        lengths: Tokens in each document, (N,), from 1 to `size`.
        size: Tokens in a row.

    Returns:
        The row of each document, (N,).

    Source: best-fit decreasing, as in `batching.packing.best_fit`, but no document is longer than a row, and rows of
    equal room share a list, so that a document takes constant time.
    """
    rows = np.zeros(len(lengths), dtype=np.int64)
    with_room: list[list[int]] = [[] for _ in range(size + 1)]
    rooms: list[int] = []  # those of any row, ascending
    num_rows = 0
    order = np.argsort(-lengths, kind="stable")
    for position, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        place = bisect_left(rooms, length)
        if place == len(rooms):
            room, row, num_rows = size, num_rows, num_rows + 1
        else:
            room = rooms[place]
            row = with_room[room].pop()
            if not with_room[room]:
                del rooms[place]
        rows[position] = row
        if left := room - length:
            if not with_room[left]:
                insort(rooms, left)
            with_room[left].append(row)
    return rows


def _inner_cuts(begins: Places, lengths: Places, size: int) -> Places:
    """Where documents are cut that are split every `size` tokens."""
    counts = -(-lengths // size) - 1
    return np.repeat(begins, counts) + size * (_count_up(counts) + 1)


def _count_up(counts: Places) -> Places:
    """0 to n - 1 for each count n, one after the other."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0, dtype=np.int64) - np.repeat(ends - counts, counts)


PLANS: dict[BlockPolicy, Callable[[Documents, int, Tokens, bool], Plan]] = {
    "stream": _Stream,
    "best_fit": _BestFit,
    "sentence_end": _SentenceEnd,
    "document": _FromDocuments,
}
