"""Sums nats, tokens and bytes by segment; derives nll, perplexity and bits per byte under every mask."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics import Metric

from data_modules.batching.batch import Batch
from data_modules.rendering.masking import MASKS
from data_modules.rendering.segments import (
    ANSWER_KINDS,
    THINKING_KINDS,
    TOOL_CALL_KINDS,
    TRAINED_KINDS,
    SegmentKind,
)

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
    "context_answer": (SegmentKind.CONTEXT_ANSWER,),
    "thinking": THINKING_KINDS,
    "tool_call": TOOL_CALL_KINDS,
    "tool_result": (SegmentKind.TOOL_RESULT,),
}
"""The segments with metrics, as sums over these rows. An end token counts both in what it ends, an answer or a tool
call, and separately."""


class ExactSumMetric(Metric):
    """A metric whose states keep their dtype, so that no precision setting can cast a count or a sum.

    Half-precision training calls `.to(bfloat16)` on the whole module, including children, and a bfloat16 count gets
    stuck at 256.
    """

    full_state_update = False

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> ExactSumMetric:
        def move_only(tensor: Tensor) -> Tensor:
            return tensor.to(fn(tensor).device)

        return super()._apply(move_only, *args, **kwargs)  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class RecordSums:
    """The sums of one record, for each segment kind and for first answer and end tokens.

    Attributes:
        nats: Negative log-likelihood.
        tokens: How many are predicted.
        bytes: Bytes of text behind them.
        characters: Characters of text behind them.
        preferred: Of its preference pairs, how many have a chosen answer likelier than the rejected one, and their
            number.
    """

    nats: tuple[float, ...] = (0.0,) * _NUM_SUMS
    tokens: tuple[float, ...] = (0.0,) * _NUM_SUMS
    bytes: tuple[float, ...] = (0.0,) * _NUM_SUMS
    characters: tuple[float, ...] = (0.0,) * _NUM_SUMS
    preferred: tuple[float, ...] = (0.0, 0.0)

    def __add__(self, other: RecordSums) -> RecordSums:
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return RecordSums(*(tuple(map(sum, zip(*pair, strict=True))) for pair in pairs))

    def scores(self, over: Literal["tokens", "bytes", "characters"] = "tokens") -> dict[str, tuple[float, int]]:
        """Nats and size by mask and segment, without empty ones."""
        scores = {}
        for name, weights in _score_weights().items():
            size = sum(w * n for w, n in zip(weights, getattr(self, over), strict=True))
            if size:
                scores[name] = sum(w * n for w, n in zip(weights, self.nats, strict=True) if w), int(size)
        return scores


class SegmentMetrics(ExactSumMetric):
    """Negative log-likelihood by segment, independent of the training mask.

    Args:
        token_sizes: Bytes and characters of text behind each token, (V, 2) int64.
        end_token_id: The token that ends answers.
        by_record: Whether to also keep the sums of every record, for `take_records`.
    """

    nats: Tensor
    tokens: Tensor
    bytes: Tensor

    def __init__(self, token_sizes: Tensor, end_token_id: int, *, by_record: bool = False) -> None:
        super().__init__()
        self.by_record = by_record
        self._records: list[tuple[tuple[str, ...], Tensor]] = []
        self.register_buffer("token_sizes", token_sizes, persistent=False)
        self.end_token_id = end_token_id
        self.add_state("nats", torch.zeros(_NUM_SUMS, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("tokens", torch.zeros(_NUM_SUMS, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("bytes", torch.zeros(_NUM_SUMS, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, nll: Tensor, batch: Batch) -> None:
        """Add a batch.

        Args:
            nll: (N,) nats of `batch.targets`.
            batch: The batch.
        """
        ids = batch.input_ids.flatten()[batch.targets]
        kinds, turns = batch.kinds.flatten(), batch.turns.flatten()
        kind, before = kinds[batch.targets].long(), batch.targets - 1
        is_answer = _is_one_of(kind, ANSWER_KINDS)
        follows = _is_one_of(kinds[before], ANSWER_KINDS) & (turns[before] == turns[batch.targets])
        is_first = is_answer & ~follows
        is_end = _is_one_of(kind, TRAINED_KINDS) & (ids == self.end_token_id)
        sizes = self.token_sizes[ids].double().T  # type: ignore[index]
        values = torch.stack([nll.double(), torch.ones_like(nll, dtype=torch.float64), *sizes])
        sums = values.new_zeros(len(values), len(batch.origins) * _NUM_SUMS)
        document = batch.documents_at(batch.targets) * _NUM_SUMS
        sums.index_add_(1, document + kind, values)
        # masked_fill, not a product: zero times an infinite nll is NaN
        sums.index_add_(1, document + _FIRST, values.masked_fill(~is_first, 0))
        sums.index_add_(1, document + _END, values.masked_fill(~is_end, 0))
        sums = sums.view(len(values), len(batch.origins), _NUM_SUMS)
        self.nats += sums[0].sum(0)
        self.tokens += sums[1].sum(0).long()
        self.bytes += sums[2].sum(0).long()
        if self.by_record:
            self._records.append((batch.origins, sums))

    def take_records(self) -> dict[str, RecordSums]:
        """Return and clear the sums of every record on this process, by origin; parts of a record are added up."""
        found: dict[str, RecordSums] = {}
        for origins, sums in self._records:
            for origin, *values in zip(origins, *sums.tolist(), strict=True):
                record = RecordSums(*map(tuple, values))
                if any(record.tokens):  # neither a dummy nor a record of one token
                    found[origin] = found.get(origin, RecordSums()) + record
        self._records = []
        return found

    def compute(self) -> dict[str, float]:
        """Metrics named `nll/answer`, `perplexity/output_only`, `bits_per_byte/text`, `tokens/answer`, ...

        Segments without tokens are left out.
        """
        nats, tokens, num_bytes = self.nats.tolist(), self.tokens.tolist(), self.bytes.tolist()
        metrics: dict[str, float] = {}
        for name, weights in _score_weights().items():
            metrics |= _metrics(name, weights, nats, tokens, num_bytes)
        return metrics


class WeightedMean(ExactSumMetric):
    """A weighted mean: the training loss over any number of batches and ranks."""

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
        """The weighted mean; NaN if the total weight is zero."""
        weight = float(self.weight)
        return float(self.total) / weight if weight else math.nan


def perplexity(nll: float) -> float:
    """exp(nll); infinite instead of an overflow error."""
    return math.exp(nll) if nll < 700 else math.inf


def _is_one_of(kinds: Tensor, wanted: tuple[SegmentKind, ...]) -> Tensor:
    return torch.stack([kinds == kind for kind in wanted]).any(0)


def _score_weights() -> dict[str, list[float]]:
    """The weight of each sum in the metrics of every segment and mask."""
    segments = {name: [float(row in rows) for row in range(_NUM_SUMS)] for name, rows in SEGMENTS.items()}
    masks = {mask.name: [*mask.weights, *[0.0] * (_NUM_SUMS - len(mask.weights))] for mask in MASKS.values()}
    return segments | masks


def _metrics(
    name: str, weights: list[float], nats: list[float], tokens: list[int], num_bytes: list[int]
) -> dict[str, float]:
    count = sum(w * n for w, n in zip(weights, tokens, strict=True))
    if not count:
        return {}
    total = sum(w * n for w, n in zip(weights, nats, strict=True) if w)  # zero times infinity is NaN
    size = sum(w * n for w, n in zip(weights, num_bytes, strict=True))
    metrics = {f"tokens/{name}": count, f"nll/{name}": total / count, f"perplexity/{name}": perplexity(total / count)}
    if size and name not in ("first_answer_token", "end_token"):
        metrics[f"bits_per_byte/{name}"] = total / math.log(2) / size
    return metrics


def gather_records(records: dict[str, RecordSums], world_size: int) -> dict[str, RecordSums]:
    """Add up the sums of all processes: parts of a record may have been scored on several.

    Args:
        records: The sums of this process, by origin.
        world_size: Number of processes.
    """
    parts: list[Any] = [records]
    if world_size > 1:
        parts = [None] * world_size
        torch.distributed.all_gather_object(parts, records)
    gathered: dict[str, RecordSums] = {}
    for part in parts:
        gathered |= {origin: gathered.get(origin, RecordSums()) + sums for origin, sums in part.items()}
    return gathered


def scalars(metrics: dict[str, float], split: str) -> dict[str, float]:
    """The metrics of a split to draw as curves, by log key: all but the counts."""
    return {
        f"{split}/{name}": value for name, value in metrics.items() if name.partition("/")[0] not in ("tokens", "step")
    }


def curves(metrics: dict[str, float]) -> dict[str, float]:
    """What loggers draw: without perplexity and bits per byte under masks of the same tokens as `answer`.

    With one answer per conversation, these are all masks of answers, and every curve would be drawn three times. Their
    `nll` stays, so that masks can be compared in one chart.

    Args:
        metrics: By log key, such as `val/perplexity/output_only`.
    """

    def _is_repeat(name: str, value: float) -> bool:
        quantity, _, part = name.rpartition("/")
        is_drawn_once = quantity.endswith(("perplexity", "bits_per_byte")) and part in MASKS
        return is_drawn_once and math.isclose(value, metrics.get(f"{quantity}/answer", math.nan), rel_tol=1e-9)

    return {name: value for name, value in metrics.items() if not _is_repeat(name, value)}
