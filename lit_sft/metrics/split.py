"""The metrics of a split: by segment and mask, under the training mask, and by source."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from data_modules.batching.batch import Batch
from lit_sft.metrics.segments import SegmentMetrics, WeightedMean
from lit_sft.metrics.sources import SourceMetrics


class SplitMetrics(nn.Module):
    """Everything that is measured on a split.

    Args:
        token_sizes: See `SegmentMetrics`.
        end_token_id: The token that ends an answer.
        sources: Names of the sources of a mixture.
        by_record: Whether to also keep the sums of every record.
    """

    def __init__(
        self, token_sizes: Tensor, end_token_id: int, sources: Sequence[str], *, by_record: bool = False
    ) -> None:
        super().__init__()
        self.segments = SegmentMetrics(token_sizes, end_token_id, by_record=by_record)
        self.loss = WeightedMean()
        self.sources = SourceMetrics(sources, token_sizes)

    def update(self, nll: Tensor, batch: Batch) -> None:
        """Add a batch with the (N,) nats of its targets."""
        weights = batch.weights.flatten()[batch.targets]
        self.segments.update(nll, batch)
        self.loss.update(nll, weights)
        self.sources.update(nll, weights, batch)

    def finish(self) -> dict[str, float]:
        """The metrics, which start again from nothing."""
        metrics = {"loss": self.loss.compute(), **self.segments.compute(), **self.sources.compute()}
        for metric in (self.segments, self.loss, self.sources):
            metric.reset()
        return metrics
