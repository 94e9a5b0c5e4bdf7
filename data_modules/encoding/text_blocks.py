"""Blocks of text: which tokens of which documents form each training block.

Blocks are places of tokens, never tokens themselves, so other blocks need no new encoding. Two documents of 4 and 8
tokens in blocks of 6; `E` is the end token, and `.` ends a sentence:

    documents       a . a E   b b b . b b . E

    stream          a . a E b b | b . b b . E      cut anywhere
    best_fit        b b b . b b | a . a E . E      cut only if longer than a block; the rest is packed with others
    sentence_end    a . a E | b b b .              cut at the last sentence end that fits; the rest is dropped
    document        a . a E | b b b . b b          cut at the block size; the rest is dropped
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import NamedTuple

import numpy as np

from data_modules.encoding.block_plans import PLANS, BlockPolicy, Documents, Places, Tokens
from data_modules.progress import Progress

_GAP = 4096
"""Cuts closer than this are looked up together."""

_CUTS_AT_ONCE = 1024


class Piece(NamedTuple):
    """Neighbouring tokens of one document in a block.

    Attributes:
        start: Its first token, counted over all documents.
        stop: The token after its last.
        continues: Whether earlier tokens of its document are elsewhere.
        document: Index of its document.
    """

    start: int
    stop: int
    continues: bool
    document: int


@dataclass(frozen=True)
class BlockLedger:
    """What happened to the tokens of some documents.

    Attributes:
        documents: Documents with at least one token.
        tokens: Their tokens; always the sum of `kept` and `cropped`.
        blocks: Blocks.
        kept: Tokens in blocks; each is in exactly one.
        cropped: Tokens in no block.
        padding: How many tokens the blocks fall short of full size. This costs nothing: rows are packed.
        documents_cut: Documents that are not whole in one block.
        documents_dropped: Documents without a token in any block.
        sentences_cut: Cuts within a sentence, whether the rest is in another block or dropped.
    """

    documents: int = 0
    tokens: int = 0
    blocks: int = 0
    kept: int = 0
    cropped: int = 0
    padding: int = 0
    documents_cut: int = 0
    documents_dropped: int = 0
    sentences_cut: int = 0

    def __add__(self, other: BlockLedger) -> BlockLedger:
        return BlockLedger(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    def as_dict(self) -> dict[str, int]:
        """The counts by name."""
        return asdict(self)


class Blocks:
    """The blocks of some documents, by index.

    Args:
        policy: How documents are cut and put together.
        size: Maximum number of tokens in a block.
        shards: The documents.
        documents: Which of them, as ascending indices. None: all.
        keep_rest: With `sentence_end` and `document`: whether the rest of a long document forms further blocks instead
            of being dropped. A sentence longer than a block is dropped by `sentence_end` all the same.
    """

    def __init__(
        self,
        policy: BlockPolicy,
        size: int,
        shards: Tokens,
        documents: Places | None = None,
        *,
        keep_rest: bool = False,
    ) -> None:
        self.policy, self.size, self.keep_rest = policy, size, keep_rest
        self._shards = shards
        self._documents = Documents(shards.starts, documents)
        self._plan = PLANS[policy](self._documents, size, shards, keep_rest)

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, index: int) -> list[Piece]:
        if not 0 <= index < len(self):
            raise IndexError(f"block {index} of {len(self)}")
        starts = self._shards.starts
        pieces = []
        for start, stop in self._plan.spans(index):
            document = int(np.searchsorted(starts, start, side="right")) - 1
            pieces.append(Piece(start, stop, start > int(starts[document]), document))
        return pieces

    def num_tokens(self, index: int) -> int:
        """Tokens in a block, without padding."""
        return self._plan.num_tokens(index)

    def num_pieces(self, index: int) -> int:
        """Documents in a block, whole or in part."""
        return len(self._plan.spans(index))

    @cached_property
    def ledger(self) -> BlockLedger:
        """What happened to all tokens."""
        kept, cut, dropped, cuts = self._plan.totals()
        total = self._documents.num_tokens
        return BlockLedger(
            documents=len(self._documents),
            tokens=total,
            blocks=len(self),
            kept=kept,
            cropped=total - kept,
            padding=len(self) * self.size - kept,
            documents_cut=cut,
            documents_dropped=dropped,
            sentences_cut=len(cuts) - _num_sentence_ends(self._shards, cuts),
        )


def _num_sentence_ends(shards: Tokens, cuts: Places) -> int:
    """How many ascending cuts come after the end of a sentence."""
    found = 0
    groups = np.split(cuts, np.flatnonzero(np.diff(cuts) > _GAP) + 1) if len(cuts) else []
    with Progress("counting cut sentences", "cuts", len(cuts)) as progress:
        for group in groups:
            for first in range(0, len(group), _CUTS_AT_ONCE):
                part = group[first : first + _CUTS_AT_ONCE]
                ends = shards.sentence_ends(int(part[0]) - 1, int(part[-1]))
                found += int(ends[part - part[0]].sum())
                progress.update(len(part))
    return found
