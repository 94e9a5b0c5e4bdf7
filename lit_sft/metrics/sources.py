"""Validation and test metrics by source of a mixture."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from data_modules.batching.batch import Batch
from lit_sft.metrics.segments import SEGMENTS, ExactSumMetric, perplexity

_MEASURED = ("answer", "text")
"""The segments with metrics by source."""

_TEXT = 1 + _MEASURED.index("text")


class SourceMetrics(ExactSumMetric):
    """The loss, and the negative log-likelihood of answers and texts, for each source of a mixture.

    Args:
        names: The names of the sources; none without a mixture.
        token_sizes: Bytes and characters of text behind each token, (V, 2) int64. None: no bits per byte.
    """

    nats: Tensor
    weights: Tensor
    bytes: Tensor

    def __init__(self, names: Sequence[str], token_sizes: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("token_sizes", token_sizes, persistent=False)
        self.names = tuple(names)
        shape = (1 + len(_MEASURED), len(names))
        self.add_state("nats", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("weights", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("bytes", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, nll: Tensor, weights: Tensor, batch: Batch) -> None:
        """Add a batch.

        Args:
            nll: (N,) nats of `batch.targets`.
            weights: (N,) weights in the loss.
            batch: The batch.
        """
        if not self.names:
            return
        sources = torch.tensor(batch.sources, device=nll.device)[batch.documents_at(batch.targets)]
        kinds, known = batch.kinds.flatten()[batch.targets], sources >= 0
        sizes = None if self.token_sizes is None else self.token_sizes[batch.input_ids.flatten()[batch.targets], 0]  # type: ignore[index]
        measured = [torch.isin(kinds, kinds.new_tensor(SEGMENTS[name])) for name in _MEASURED]
        for row, counted in enumerate((weights.double(), *(each.double() for each in measured))):
            # zero times an infinite nll is NaN
            nats = (nll.double() * counted).masked_fill(counted == 0, 0)
            self.nats[row].index_add_(0, sources[known], nats[known])
            self.weights[row].index_add_(0, sources[known], counted[known])
            if sizes is not None:
                self.bytes[row].index_add_(0, sources[known], (sizes * counted)[known])

    def compute(self) -> dict[str, float]:
        """Metrics named `source/NAME/loss`, `source/NAME/nll/answer`, `source/NAME/perplexity/answer`, ...

        A source without validation records has none.
        """
        metrics: dict[str, float] = {}
        for index, name in enumerate(self.names):
            totals, sizes = self.nats[:, index].tolist(), self.weights[:, index].tolist()
            means = [total / size if size else None for total, size in zip(totals, sizes, strict=True)]
            if means[0] is not None:
                metrics[f"source/{name}/loss"] = means[0]
            for segment, mean in zip(_MEASURED, means[1:], strict=True):
                if mean is not None:
                    metrics[f"source/{name}/nll/{segment}"] = mean
                    metrics[f"source/{name}/perplexity/{segment}"] = perplexity(mean)
            if num_bytes := float(self.bytes[_TEXT, index]):
                metrics[f"source/{name}/bits_per_byte/text"] = totals[_TEXT] / math.log(2) / num_bytes
        return metrics
