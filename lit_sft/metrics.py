"""Sums of nats, tokens and bytes by segment; from them nll, perplexity and bits per byte, under every mask."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from data_modules.batch import Batch
from data_modules.masking import MASKS, LossMask
from data_modules.templates import ANSWER_KINDS, SegmentKind

_FIRST = len(SegmentKind)
_END = _FIRST + 1
_NUM_SUMS = _END + 1

SEGMENTS: dict[str, tuple[int, ...]] = {
    "system": (SegmentKind.SYSTEM,),
    "user": (SegmentKind.USER,),
    "template": (SegmentKind.TEMPLATE,),
    "answer": ANSWER_KINDS,
    "first_answer_token": (_FIRST,),
    "end_token": (_END,),
    "text": (SegmentKind.TEXT,),
}
"""What figures are given for: sums over these rows. An end token counts in its answer and by itself."""


class ExactSumMetric(Metric):
    """A metric whose states keep their dtype: no precision setting can cast a count or a sum.

    Half-precision training calls `.to(bfloat16)` on the whole module, children included, and a bfloat16 count sticks
    at 256.
    """

    full_state_update = False

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> ExactSumMetric:
        def move_only(tensor: Tensor) -> Tensor:
            return tensor.to(fn(tensor).device)

        return super()._apply(move_only, *args, **kwargs)  # type: ignore[return-value]


class SegmentMetrics(ExactSumMetric):
    """Negative log-likelihood by segment, whatever mask trains.

    Args:
        token_bytes: Bytes of text each token stands for, (V,) int64.
        end_token_id: The token that ends answers.
    """

    nats: Tensor
    tokens: Tensor
    bytes: Tensor

    def __init__(self, token_bytes: Tensor, end_token_id: int) -> None:
        super().__init__()
        self.register_buffer("token_bytes", token_bytes, persistent=False)
        self.end_token_id = end_token_id
        self.add_state("nats", torch.zeros(_NUM_SUMS, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("tokens", torch.zeros(_NUM_SUMS, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("bytes", torch.zeros(_NUM_SUMS, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, nll: Tensor, batch: Batch) -> None:
        """Add a batch.

        Args:
            nll: (N,) nats of `batch.targets`.
            batch: Its tokens.
        """
        ids = batch.input_ids.flatten()[batch.targets]
        kinds, turns = batch.kinds.flatten(), batch.turns.flatten()
        kind, before = kinds[batch.targets].long(), batch.targets - 1
        is_answer = _is_answer(kind)
        follows = _is_answer(kinds[before]) & (turns[before] == turns[batch.targets])
        values = nll.double(), torch.ones_like(ids), self.token_bytes[ids]  # type: ignore[index]
        is_first, is_end = is_answer & ~follows, is_answer & (ids == self.end_token_id)
        self._add(kind, *values)
        # filled, not multiplied: zero times an infinite nll is nan
        self._add(torch.full_like(kind, _FIRST), *(value.masked_fill(~is_first, 0) for value in values))
        self._add(torch.full_like(kind, _END), *(value.masked_fill(~is_end, 0) for value in values))

    def _add(self, rows: Tensor, nats: Tensor, tokens: Tensor, num_bytes: Tensor) -> None:
        self.nats.index_add_(0, rows, nats)
        self.tokens.index_add_(0, rows, tokens)
        self.bytes.index_add_(0, rows, num_bytes)

    def compute(self) -> dict[str, float]:
        """Figures named `nll/answer`, `perplexity/output_only`, `bits_per_byte/text`, `tokens/answer`, ...

        A mean over nothing is not given.
        """
        nats, tokens, num_bytes = self.nats.tolist(), self.tokens.tolist(), self.bytes.tolist()
        figures: dict[str, float] = {}
        for name, rows in SEGMENTS.items():
            weights = [float(row in rows) for row in range(_NUM_SUMS)]
            figures |= _figures(name, weights, nats, tokens, num_bytes)
        for mask in MASKS.values():
            figures |= _figures(mask.name, _padded(mask), nats, tokens, num_bytes)
        return figures


class WeightedMean(ExactSumMetric):
    """A mean of values by weight: the training loss over any number of batches and ranks."""

    total: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("weight", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, values: Tensor, weights: Tensor) -> None:
        """Add (N,) values with (N,) weights."""
        self.total += (values.double() * weights.double()).sum()
        self.weight += weights.double().sum()

    def compute(self) -> float:
        """nan if nothing has any weight."""
        weight = float(self.weight)
        return float(self.total) / weight if weight else math.nan


def perplexity(nll: float) -> float:
    """exp(nll), infinite rather than an error beyond what a float can hold."""
    return math.exp(nll) if nll < 700 else math.inf


def _is_answer(kinds: Tensor) -> Tensor:
    return (kinds == SegmentKind.ANSWER) | (kinds == SegmentKind.FINAL_ANSWER)


def _padded(mask: LossMask) -> list[float]:
    return [*mask.weights, *[0.0] * (_NUM_SUMS - len(mask.weights))]


def _figures(
    name: str, weights: list[float], nats: list[float], tokens: list[int], num_bytes: list[int]
) -> dict[str, float]:
    count = sum(w * n for w, n in zip(weights, tokens, strict=True))
    if not count:
        return {}
    total = sum(w * n for w, n in zip(weights, nats, strict=True) if w)  # zero times infinity is nan
    size = sum(w * n for w, n in zip(weights, num_bytes, strict=True))
    figures = {f"tokens/{name}": count, f"nll/{name}": total / count, f"perplexity/{name}": perplexity(total / count)}
    if size and name not in ("first_answer_token", "end_token"):
        figures[f"bits_per_byte/{name}"] = total / math.log(2) / size
    return figures
