"""Validation and test metrics by source of a mixture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from data_modules.batching.batch import Batch
from lit_sft.metrics.segments import SEGMENTS, ExactSumMetric, perplexity

_MEASURED = ("answer", "text")
"""The segments with metrics by source."""


class SourceMetrics(ExactSumMetric):
    """The loss, and the negative log-likelihood of answers and texts, for each source of a mixture.

    Args:
        names: The names of the sources; none without a mixture.
    """

    nats: Tensor
    weights: Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        shape = (1 + len(_MEASURED), len(names))
        self.add_state("nats", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("weights", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

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
        measured = [torch.isin(kinds, kinds.new_tensor(SEGMENTS[name])) for name in _MEASURED]
        for row, counted in enumerate((weights.double(), *(each.double() for each in measured))):
            # zero times an infinite nll is NaN
            nats = (nll.double() * counted).masked_fill(counted == 0, 0)
            self.nats[row].index_add_(0, sources[known], nats[known])
            self.weights[row].index_add_(0, sources[known], counted[known])

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
        return metrics
