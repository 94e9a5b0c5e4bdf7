"""The metrics of a split: by segment and mask, under the training mask, by source, and of preference pairs."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from data_modules.batching.batch import Batch
from lit_sft.metrics.preferences import PreferenceLosses, PreferenceMetrics
from lit_sft.metrics.segments import RecordSums, SegmentMetrics, WeightedMean
from lit_sft.metrics.sources import SourceMetrics


class SplitMetrics(nn.Module):
    """Everything that is measured on a split.

    Args:
        token_sizes: See `SegmentMetrics`.
        end_token_id: The token that ends an answer.
        sources: Names of the sources of a mixture.
        judge: See `PreferenceMetrics`.
        by_record: Whether to also keep the sums of every record.
    """

    def __init__(
        self,
        token_sizes: Tensor,
        end_token_id: int,
        sources: Sequence[str],
        judge: PreferenceLosses | None = None,
        *,
        by_record: bool = False,
    ) -> None:
        super().__init__()
        self.segments = SegmentMetrics(token_sizes, end_token_id, by_record=by_record)
        self.loss = WeightedMean()
        self.sources = SourceMetrics(sources, token_sizes)
        self.preferences = PreferenceMetrics(judge, by_record=by_record)

    def update(self, nll: Tensor, batch: Batch, reference: Tensor | None = None) -> None:
        """Add a batch. Of preference pairs, all metrics but their own measure the chosen documents only.

        Args:
            nll: (N,) nats of its targets.
            batch: The batch.
            reference: The same under the reference model, for preference pairs; None if there is none.
        """
        if batch.preferences is not None:
            self.preferences.update(nll, batch, reference)
            is_chosen = batch.preferences.flatten()[batch.targets] >= 0
            nll, batch = nll[is_chosen], batch.with_targets(batch.targets[is_chosen])
        weights = batch.weights.flatten()[batch.targets]
        self.segments.update(nll, batch)
        self.loss.update(nll, weights)
        self.sources.update(nll, weights, batch)

    def take_records(self) -> dict[str, RecordSums]:
        """Return and clear the sums of every record on this process, by origin."""
        preferred = self.preferences.take_records()
        records = self.segments.take_records()
        return records | {origin: records.get(origin, RecordSums()) + sums for origin, sums in preferred.items()}

    def finish(self) -> dict[str, float]:
        """The metrics, which start again from nothing."""
        metrics = {"loss": self.loss.compute(), **self.segments.compute(), **self.sources.compute()}
        if self.preferences.update_called:  # on every process, or on none
            metrics |= self.preferences.compute()
        for metric in (self.segments, self.loss, self.sources, self.preferences):
            metric.reset()
        return metrics
