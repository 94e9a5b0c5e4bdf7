"""Preference pairs: how often, and by how much, a model prefers the chosen answer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from data_modules.batching.batch import Batch
from lit_sft.metrics.segments import ExactSumMetric, RecordSums

_SUMS = (
    "pairs",
    "preferred",
    "rejected_nats",
    "rejected_tokens",
    "rewarded_pairs",
    "rewarded",
    "chosen_reward",
    "rejected_reward",
    "loss",
)
PREFERENCE_METRICS = (
    "preference_accuracy",
    "nll/rejected",
    "preference_loss",
    "reward_accuracy",
    "reward_margin",
    "reward/chosen",
    "reward/rejected",
)
"""Metrics of pairs under DPO; without a reference, only the first two."""

_PLACES = {name: place for place, name in enumerate(_SUMS)}


PreferenceLosses = Callable[[Tensor, Tensor, Batch], tuple[Tensor, Tensor]]
"""The rewards and losses of pairs, from the nats of the model and of its reference; see `PreferenceLoss`."""


class PreferenceMetrics(ExactSumMetric):
    """Metrics of preference pairs.

    Args:
        judge: The objective's rewards and losses. None: the objective has none.
        by_record: Whether to also keep which records' chosen answers are likelier, for `take_records`.
    """

    sums: Tensor

    def __init__(self, judge: PreferenceLosses | None, *, by_record: bool = False) -> None:
        super().__init__()
        self.judge, self.by_record = judge, by_record
        self._records: list[tuple[tuple[str, ...], Tensor]] = []
        self.add_state("sums", torch.zeros(len(_SUMS), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, nll: Tensor, batch: Batch, reference: Tensor | None = None) -> None:
        """Add a batch of preference pairs.

        Args:
            nll: (N,) nats of `batch.targets`.
            batch: The batch.
            reference: The same under the reference model; None if there is none.
        """
        assert batch.preferences is not None
        logps, tokens = batch.pair_sums(-nll), batch.pair_sums(torch.ones_like(nll))
        is_preferred = logps[:, 0] > logps[:, 1]
        self._add("pairs", tokens[:, 0] > 0)
        self._add("preferred", is_preferred)
        if self.by_record and len(is_preferred):  # none in a dummy
            self._records.append((batch.origins[::2], is_preferred))
        self._add("rejected_nats", -logps[:, 1])
        self._add("rejected_tokens", tokens[:, 1])
        if reference is None or self.judge is None:
            return
        rewards, losses = self.judge(nll, reference, batch)
        self._add("rewarded_pairs", tokens[:, 0] > 0)
        self._add("rewarded", rewards[:, 0] > rewards[:, 1])
        self._add("chosen_reward", rewards[:, 0])
        self._add("rejected_reward", rewards[:, 1])
        self._add("loss", losses)

    def take_records(self) -> dict[str, RecordSums]:
        """Return and clear how often each record on this process has a likelier chosen answer, by origin."""
        found: dict[str, RecordSums] = {}
        for origins, is_preferred in self._records:
            for origin, value in zip(origins, is_preferred.tolist(), strict=True):
                found[origin] = found.get(origin, RecordSums()) + RecordSums(preferred=(float(value), 1.0))
        self._records = []
        return found

    def _add(self, name: str, values: Tensor) -> None:
        self.sums[_PLACES[name]] += values.double().sum()

    def compute(self) -> dict[str, float]:
        """Metrics named `preference_accuracy`, `nll/rejected`, ...; with a reference also `reward_margin`, ..."""
        sums = dict(zip(_SUMS, self.sums.tolist(), strict=True))
        if not sums["pairs"]:  # only dummies
            return {}
        metrics = {
            "preference_accuracy": sums["preferred"] / sums["pairs"],
            "nll/rejected": sums["rejected_nats"] / sums["rejected_tokens"],
        }
        if count := sums["rewarded_pairs"]:
            chosen, rejected = sums["chosen_reward"] / count, sums["rejected_reward"] / count
            metrics |= {
                "preference_loss": sums["loss"] / count,
                "reward_accuracy": sums["rewarded"] / count,
                "reward_margin": chosen - rejected,
                "reward/chosen": chosen,
                "reward/rejected": rejected,
            }
        return metrics
