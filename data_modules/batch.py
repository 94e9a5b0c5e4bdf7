"""Batches: examples padded to one length, with everything the loss and the metrics need to know of each token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_modules.encoding import Example
from data_modules.masking import LossMask, Reduction
from data_modules.templates import SegmentKind


class Batch:
    """B rows of T tokens, padded on the right. Not to be changed once made.

    Not a dataclass: Lightning's half precisions look into those and would cast the weights.

    Attributes:
        input_ids: Tokens, (B, T) int64.
        kinds: SegmentKind of each token, (B, T) uint8; PADDING marks padding, whatever its id.
        turns: Turn of each token, (B, T) int16.
        weights: Weight of each token in the training loss, (B, T) float32.
        targets: Flat positions in (B*T) of the tokens to predict, (N,) int64; never a document's first.
        normaliser: Sum of the weights of everything that shares this optimiser step, over micro-batches and ranks.
        origins: Where the record of each row stands.
    """

    __slots__ = ("input_ids", "kinds", "normaliser", "origins", "targets", "turns", "weights")

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
    ) -> None:
        self.input_ids, self.kinds, self.turns = input_ids, kinds, turns
        self.weights, self.targets = weights, targets
        self.normaliser, self.origins = normaliser, origins

    @property
    def num_tokens(self) -> int:
        """Tokens that are not padding; waits for the device."""
        return int((self.kinds != SegmentKind.PADDING).sum())

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        values = {name: getattr(self, name) for name in self.__slots__}
        changed: dict[str, Any] = {n: change(v) if isinstance(v, Tensor) else v for n, v in values.items()}
        return Batch(**changed)


def collate(
    examples: Sequence[Example],
    *,
    mask: LossMask,
    reduction: Reduction = "token",
    normaliser: float | None = None,
    pad_token_id: int = 0,
    score_all: bool = False,
) -> Batch:
    """Pad examples into a batch.

    Args:
        examples: The rows.
        mask: Which tokens the loss is on.
        reduction: How their weights are shared out.
        normaliser: Weight of the whole optimiser step. None: of this batch alone.
        pad_token_id: Any id; padding is known by its kind.
        score_all: Predict every token that something predicts, for metrics; else only those with a weight.
    """
    shape = (len(examples), max(len(example) for example in examples))
    input_ids = np.full(shape, pad_token_id, dtype=np.int64)
    kinds = np.full(shape, SegmentKind.PADDING, dtype=np.uint8)
    turns, weights = np.zeros(shape, dtype=np.int16), np.zeros(shape, dtype=np.float32)
    for row, example in enumerate(examples):
        end = len(example)
        input_ids[row, :end], kinds[row, :end], turns[row, :end] = example.input_ids, example.kinds, example.turns
        weights[row, :end] = mask.token_weights(example.kinds, example.turns, reduction)
    wanted = kinds != SegmentKind.PADDING if score_all else weights > 0
    wanted[:, 0] = False
    return Batch(
        input_ids=torch.from_numpy(input_ids),
        kinds=torch.from_numpy(kinds),
        turns=torch.from_numpy(turns),
        weights=torch.from_numpy(weights),
        targets=torch.from_numpy(np.flatnonzero(wanted)),
        normaliser=float(weights.sum(dtype=np.float64)) if normaliser is None else normaliser,
        origins=tuple(example.origin for example in examples),
    )
