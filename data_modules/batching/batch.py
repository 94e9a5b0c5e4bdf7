"""Batches: padded or packed examples, with everything that the loss and the metrics need for each token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_modules.batching.pairs import documents_of
from data_modules.batching.prefix_tree import PrefixTree, prefix_tree
from data_modules.encoding.example import Example
from data_modules.rendering.masking import MASKS, LossMask, Reduction, Weights
from data_modules.rendering.segments import SegmentKind

_ANSWERS = MASKS["firefly_multi_turn"]
"""What is scored of preference pairs, whatever is trained: both answers, in all turns."""


class Batch:
    """B rows of T tokens: documents padded on the right, or one row of concatenated documents. Immutable.

    Not a dataclass, because Lightning's half precisions would cast the weights inside one.

    Attributes:
        input_ids: Tokens, (B, T) int64.
        kinds: SegmentKind of each token, (B, T) uint8; PADDING marks padding, whatever its id.
        turns: Turn of each token, (B, T) int16.
        weights: Weight of each token in the training loss, (B, T) float32.
        targets: Flat positions in (B*T) of the tokens to predict, (N,) int64; never a document's first.
        normaliser: Sum of all weights in this optimiser step, or the number of its pairs, over micro-batches and ranks.
        origins: Where the record of each document is, `file:line`.
        sources: Index of the source of each document in a mixture; -1 if it is not from one.
        positions: Position of each token in its document, (B, T) int64.
        lengths: Tokens in each document.
        boundaries: In a packed row: starts of the documents and the end of the last, (documents + 1,) int32. None
            if every row is one document.
        tree: What documents of a packed row share, so that it is computed once; None if nothing is shared. It belongs
            to these ids and targets; all other attributes are the same with and without it.
        preferences: For preference pairs, the weight of each token in the log-probability of its answer, (B, T)
            float32, negative in rejected answers. Documents 2i and 2i + 1 are the chosen and the rejected one of a
            pair, or only one of them has an answer; rejected ones have no `weights`. With `score_all`, they depend on
            no mask and no reduction. None: the documents are not pairs.
    """

    __slots__ = (
        "boundaries",
        "input_ids",
        "kinds",
        "lengths",
        "normaliser",
        "origins",
        "positions",
        "preferences",
        "sources",
        "targets",
        "tree",
        "turns",
        "weights",
    )

    def __init__(
        self,
        *,
        input_ids: Tensor,
        kinds: Tensor,
        turns: Tensor,
        weights: Tensor,
        targets: Tensor,
        normaliser: float,
        origins: tuple[str, ...],
        positions: Tensor,
        lengths: tuple[int, ...],
        boundaries: Tensor | None = None,
        sources: tuple[int, ...] = (),
        tree: PrefixTree | None = None,
        preferences: Tensor | None = None,
    ) -> None:
        self.input_ids, self.kinds, self.turns = input_ids, kinds, turns
        self.weights, self.targets = weights, targets
        self.normaliser, self.origins = normaliser, origins
        self.positions, self.lengths, self.boundaries = positions, lengths, boundaries
        self.sources, self.tree = sources or (-1,) * len(origins), tree
        self.preferences = preferences

    @property
    def num_tokens(self) -> int:
        """Number of tokens without padding. Synchronises with the device."""
        return int((self.kinds != SegmentKind.PADDING).sum())

    def documents_at(self, places: Tensor) -> Tensor:
        """The document at each flat position in (B*T), as an index into `origins`."""
        if self.boundaries is None:
            return places // self.input_ids.shape[1]
        return torch.searchsorted(self.boundaries, places, right=True) - 1

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """A copy on another device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """A copy in pinned memory."""
        return self._map(lambda tensor: tensor.pin_memory())

    def unshared(self) -> Batch:
        """The same batch, with what its documents share computed for each of them."""
        return self if self.tree is None else Batch(**{n: getattr(self, n) for n in self.__slots__} | {"tree": None})

    def with_targets(self, targets: Tensor) -> Batch:
        """The same documents with other targets, for metrics."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return Batch(**values | {"targets": targets, "tree": None})

    @property
    def num_pairs(self) -> int:
        """Number of preference pairs; 0 in a dummy batch."""
        return len(self.origins) // 2 if self.preferences is not None and len(self.targets) else 0

    @property
    def weight(self) -> Tensor:
        """The batch's part of the normaliser, a float32 scalar."""
        return self.weights.sum() if self.preferences is None else self.weights.new_full((), self.num_pairs)

    def pair_sums(self, values: Tensor) -> Tensor:
        """Add up a quantity over the answers of each preference pair, weighted by `preferences`.

        Args:
            values: (N,), of the targets.

        Returns:
            (pairs, 2): of the chosen and of the rejected answer.
        """
        assert self.preferences is not None
        weights = self.preferences.flatten()[self.targets].abs().to(values.dtype)
        weighted = (values * weights).masked_fill(weights == 0, 0)  # zero times infinity is NaN
        sums, documents = values.new_zeros(2 * self.num_pairs), self.documents_at(self.targets)
        # each adds in a fixed order on its device
        if values.device.type == "cpu":
            return sums.index_add(0, documents, weighted).view(-1, 2)
        return sums.index_put((documents,), weighted, accumulate=True).view(-1, 2)

    @property
    def answered(self) -> Tensor:
        """Whether each preference pair has a chosen and a rejected answer, (pairs, 2) bool."""
        return self.pair_sums(self.targets.new_ones(len(self.targets), dtype=torch.float32)) > 0

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        values = {name: getattr(self, name) for name in self.__slots__}
        changed: dict[str, Any] = {n: change(v) if isinstance(v, Tensor) else v for n, v in values.items()}
        return Batch(**changed | {"tree": self.tree.map(change) if self.tree else None})


def collate(
    examples: Sequence[Example],
    *,
    mask: LossMask | Sequence[LossMask],
    reduction: Reduction = "token",
    normaliser: float | None = None,
    pad_token_id: int = 0,
    score_all: bool = False,
    pack: bool = False,
    counts: bool = True,
    share_prefixes: bool = False,
    pairs: bool = False,
) -> Batch:
    """Make a batch of examples.

    Args:
        examples: The documents, or preference pairs.
        mask: Which tokens are supervised. For a mixture: a mask for each source, then one for other examples.
        reduction: How weights are shared among tokens.
        normaliser: Total weight of the optimiser step, or its number of pairs. None: that of this batch.
        pad_token_id: Any id; padding is identified by its kind.
        score_all: Make every predictable token a target, for metrics, which compare whole answers of pairs;
            otherwise only those with a weight.
        pack: Concatenate the documents in one row without padding; otherwise one document per row.
        counts: False for a dummy batch, which gets no weights and no targets.
        share_prefixes: Whether what documents of a packed row share is to be computed once.
        pairs: Whether both documents of preference pairs are in the batch; otherwise only the chosen one.
    """
    examples = documents_of(examples) if pairs else examples
    rows = _Rows(examples, pack=pack, pad_token_id=pad_token_id)
    kinds, starts, is_rejected = rows.kinds, rows.starts, rows.is_odd & pairs
    masks = (mask,) if isinstance(mask, LossMask) else mask
    weights = rows.filled(lambda example: example.loss_weights(masks[example.source], reduction))
    answers = rows.filled(lambda example: example.loss_weights(_ANSWERS)) if score_all else weights.copy()
    if not counts:
        weights[:], answers[:], kinds[:] = 0.0, 0.0, SegmentKind.PADDING
    # nothing predicts a document's first token; what comes before a rejected answer is scored in the chosen document
    wanted = (kinds != SegmentKind.PADDING if score_all else weights > 0) & (rows.positions > 0)
    targets = np.flatnonzero(wanted & ~(is_rejected & (answers == 0)))
    preferences = np.where(is_rejected, -answers, answers) if pairs else None
    weights[is_rejected] = 0.0
    size = float(counts * len(examples) / 2 if pairs else weights.sum(dtype=np.float64))
    shares = pack and share_prefixes
    return Batch(
        input_ids=torch.from_numpy(rows.input_ids),
        kinds=torch.from_numpy(kinds),
        turns=torch.from_numpy(rows.turns),
        weights=torch.from_numpy(weights),
        targets=torch.from_numpy(targets),
        normaliser=size if normaliser is None else normaliser,
        origins=tuple(example.origin for example in examples),
        positions=torch.from_numpy(rows.positions),
        lengths=rows.lengths,
        sources=tuple(example.source for example in examples),
        boundaries=torch.from_numpy(starts.astype(np.int32)) if pack else None,
        tree=prefix_tree([example.input_ids for example in examples], targets) if shares else None,
        preferences=None if preferences is None else torch.from_numpy(preferences),
    )


class _Rows:
    """Where documents are in the rows of a batch, and their tokens there.

    Attributes:
        lengths: Tokens in each document.
        starts: Where each document starts if they follow one another, and the end of the last.
        is_odd: Whether a token belongs to the second, fourth ... document, (B, T).
    """

    def __init__(self, examples: Sequence[Example], *, pack: bool, pad_token_id: int) -> None:
        self.lengths = tuple(len(example) for example in examples)
        self.starts = np.cumsum((0, *self.lengths))
        shape = (1, sum(self.lengths)) if pack else (len(examples), max(self.lengths))
        self.input_ids = np.full(shape, pad_token_id, dtype=np.int64)
        self.kinds = np.full(shape, SegmentKind.PADDING, dtype=np.uint8)
        self.turns, self.is_odd = np.zeros(shape, dtype=np.int16), np.zeros(shape, dtype=bool)
        self.positions = np.broadcast_to(np.arange(shape[1]), shape).copy()
        self._places = [
            (0, slice(start, start + length)) if pack else (index, slice(0, length))
            for index, (start, length) in enumerate(zip(self.starts[:-1], self.lengths, strict=True))
        ]
        self._examples = examples
        for index, (place, example) in enumerate(zip(self._places, examples, strict=True)):
            self.input_ids[place], self.kinds[place] = example.input_ids, example.kinds
            self.turns[place], self.positions[place] = example.turns, np.arange(len(example))
            self.is_odd[place] = index % 2

    def filled(self, values_of: Callable[[Example], Weights]) -> Weights:
        """(B, T) float32: a value for each token of each document, zero in padding."""
        values = np.zeros(self.input_ids.shape, dtype=np.float32)
        for place, example in zip(self._places, self._examples, strict=True):
            values[place] = values_of(example)
        return values
