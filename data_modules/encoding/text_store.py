"""The examples of a text run: training blocks, and evaluation windows that do not depend on how blocks are made.

    training, blocks of 6        a a . a E b | b b . b . E     as `text_blocks` plans them
    evaluation, windows of 4     a a . a | a E | b b b . | . b . E

A window begins with the last token of the one before it, so every token but the first of a document is predicted once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from data_modules.encoding.block_plans import Places, Tokens
from data_modules.encoding.text_blocks import Blocks, Piece

DocumentAttention = Literal["isolated", "across"]

_READ_AT_ONCE = 1 << 20


class Shards(Tokens, Protocol):
    """Encoded documents of a split; `TokenShards` on disk."""

    @property
    def sources(self) -> npt.NDArray[np.int16]:
        """Index of each document's source in a mixture, (documents,); -1 outside mixtures."""

    @property
    def num_bytes(self) -> Places:
        """Bytes of each document's text in UTF-8, (documents,)."""

    def tokens(self, start: int, stop: int) -> npt.NDArray[np.int32]:
        """Ids of a range of tokens."""


@dataclass(frozen=True, slots=True)
class TextSequence:
    """Tokens that see only each other: a document, a part of one, or all documents of a block.

    Attributes:
        input_ids: Tokens, (T,) int32. Every one but the first is predicted.
        origin: Which documents they are from.
        source: Index of their source in a mixture. -1: not from a mixture.
    """

    input_ids: npt.NDArray[np.int32]
    origin: str
    source: int = -1


class TrainingBlocks:
    """The blocks of an epoch, by index.

    Args:
        shards: The training documents.
        parts: The blocks of each source of a mixture, or of all documents.
        attention: Whether the documents of a block see each other.
        rows: Which blocks an epoch has, as indices into all parts one after the other; a block may occur several times.
            None: each once.
    """

    def __init__(
        self, shards: Shards, parts: Sequence[Blocks], attention: DocumentAttention, rows: Places | None = None
    ) -> None:
        self.shards, self.parts, self.attention, self.rows = shards, tuple(parts), attention, rows
        self._starts = np.cumsum([0, *map(len, parts)])

    def __len__(self) -> int:
        return int(self._starts[-1]) if self.rows is None else len(self.rows)

    def __getitem__(self, index: int) -> list[TextSequence]:
        blocks, place = self._find(index)
        pieces = blocks[place]
        source = int(self.shards.sources[pieces[0].document])
        if self.attention == "isolated":
            return [TextSequence(self._ids([piece]), self._origin([piece]), source) for piece in pieces]
        return [TextSequence(self._ids(pieces), self._origin(pieces), source)]

    def num_tokens(self, index: int) -> int:
        """Tokens in a block."""
        blocks, place = self._find(index)
        return blocks.num_tokens(place)

    def num_targets(self, index: int) -> int:
        """Tokens of a block that are predicted: all but the first of every sequence."""
        blocks, place = self._find(index)
        return blocks.num_tokens(place) - (blocks.num_pieces(place) if self.attention == "isolated" else 1)

    def sequence_lengths(self, index: int) -> list[int]:
        """Tokens in each sequence of a block."""
        blocks, place = self._find(index)
        lengths = [piece.stop - piece.start for piece in blocks[place]]
        return lengths if self.attention == "isolated" else [sum(lengths)]

    @property
    def lengths(self) -> Sequence[int]:
        """Tokens in each block, computed when asked for."""
        return _Lengths(self)

    @property
    def mean_length(self) -> float:
        """Mean number of tokens in a block of an epoch."""
        counts = np.array([len(blocks) for blocks in self.parts])
        means = np.array([blocks.ledger.kept for blocks in self.parts]) / np.maximum(counts, 1)
        if self.rows is not None:  # weights, repeats and limits of the sources
            counts = np.histogram(self.rows, bins=self._starts)[0]
        return float(counts @ means) / max(1, len(self))

    def _find(self, index: int) -> tuple[Blocks, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"block {index} of {len(self)}")
        place = index if self.rows is None else int(self.rows[index])
        part = int(np.searchsorted(self._starts, place, side="right")) - 1
        return self.parts[part], place - int(self._starts[part])

    def _ids(self, pieces: list[Piece]) -> npt.NDArray[np.int32]:
        parts = [self.shards.tokens(piece.start, piece.stop) for piece in pieces]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _origin(self, pieces: list[Piece]) -> str:
        first, last = pieces[0], pieces[-1]
        begin = first.start - int(self.shards.starts[first.document])
        place = f"document {first.document}{f' from token {begin}' if begin else ''}"
        return place if first == last else f"{place} to document {last.document}"


class _Lengths(Sequence[int]):
    """Tokens in each block of an epoch."""

    def __init__(self, blocks: TrainingBlocks) -> None:
        self._blocks = blocks

    def __len__(self) -> int:
        return len(self._blocks)

    def __getitem__(self, index: int) -> int:  # type: ignore[override]  # slices are not needed
        return self._blocks.num_tokens(index)


class EvaluationWindows:
    """The documents of a split in windows, by index. They depend on the size of a window only.

    Args:
        shards: The documents.
        window: Maximum number of tokens in a window, at least 2.
    """

    def __init__(self, shards: Shards, window: int) -> None:
        self.shards, self.window = shards, window
        counts = -(-np.maximum(np.diff(shards.starts) - 1, 0) // (window - 1))
        self._firsts: Places = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def __getitem__(self, index: int) -> list[TextSequence]:
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        document = int(np.searchsorted(self._firsts, index, side="right")) - 1
        begin, end = (int(place) for place in self.shards.starts[document : document + 2])
        start = begin + (index - int(self._firsts[document])) * (self.window - 1)
        ids = self.shards.tokens(start, min(start + self.window, end))
        return [TextSequence(ids, f"document {document}", int(self.shards.sources[document]))]

    def __iter__(self) -> Iterator[list[TextSequence]]:
        return (self[index] for index in range(len(self)))

    def num_bytes(self, origin: str) -> int:
        """Bytes of the text of a document, whichever tokenizer encoded it.

        Args:
            origin: That of any of its windows.
        """
        return int(self.shards.num_bytes[int(origin.rpartition(" ")[2])])

    def of_documents(self) -> Iterator[TextSequence]:
        """The first window of each document."""
        return (self[int(first)][0] for first in np.unique(self._firsts[:-1]) if first < len(self))

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens in each window, (windows,)."""
        counts, tokens = np.diff(self._firsts), np.diff(self.shards.starts)
        lengths = np.full(len(self), self.window, dtype=np.int64)
        filled = counts > 0
        lengths[self._firsts[1:][filled] - 1] = (tokens - (counts - 1) * (self.window - 1))[filled]
        return lengths

    @property
    def mean_length(self) -> float:
        """Mean number of tokens in a window."""
        return float(self.lengths.mean())

    def digest(self) -> str:
        """A digest of everything that metrics depend on: the tokens, where documents begin, and the window."""
        digest = hashlib.sha256(f"{self.window}".encode() + np.asarray(self.shards.starts).tobytes())
        for start in range(0, total := int(self.shards.starts[-1]), _READ_AT_ONCE):
            digest.update(self.shards.tokens(start, min(start + _READ_AT_ONCE, total)).tobytes())
        return digest.hexdigest()[:16]
