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
    "chosen_answers",
    "chosen_reward",
    "rejected_answers",
    "rejected_reward",
    "judged",
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
"""Metrics of preference objectives; without a reference, only the first two. Those that compare the two answers of a
pair are missing if all answers were rated on their own."""

_PLACES = {name: place for place, name in enumerate(_SUMS)}


PreferenceLosses = Callable[[Tensor, Tensor, Batch], tuple[Tensor, Tensor]]
"""The rewards and losses of pairs, from the nats of the model and of its reference; see `PreferenceLoss`."""


class PreferenceMetrics(ExactSumMetric):
    """Metrics of preference pairs, and of answers rated on their own, which are pairs with one answer.

    Args:
        judge: The objective's rewards and losses. None: the objective has none.
        by_record: Whether to also keep which records' chosen answers are likelier, for `take_records`.
    """

    sums: Tensor

    def __init__(self, judge: PreferenceLosses | None, *, by_record: bool = False) -> None:
        super().__init__()
        self.judge, self.by_record = judge, by_record
        self._records: list[tuple[tuple[str, ...], Tensor, Tensor]] = []
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
        answered = tokens > 0
        is_pair = answered.all(1)
        is_preferred = (logps[:, 0] > logps[:, 1]) & is_pair
        self._add("pairs", is_pair)
        self._add("preferred", is_preferred)
        if self.by_record and len(is_preferred):  # none in a dummy
            self._records.append((batch.origins[::2], is_preferred, is_pair))
        self._add("rejected_nats", -logps[:, 1])
        self._add("rejected_tokens", tokens[:, 1])
        if reference is None or self.judge is None:
            return
        rewards, losses = self.judge(nll, reference, batch)
        self._add("rewarded_pairs", is_pair)
        self._add("rewarded", (rewards[:, 0] > rewards[:, 1]) & is_pair)
        for side, name in enumerate(("chosen", "rejected")):
            self._add(f"{name}_answers", answered[:, side])
            self._add(f"{name}_reward", rewards[:, side])
        self._add("judged", torch.ones_like(losses))
        self._add("loss", losses)

    def take_records(self) -> dict[str, RecordSums]:
        """Return and clear how often each record on this process has a likelier chosen answer, by origin."""
        found: dict[str, RecordSums] = {}
        for origins, is_preferred, is_pair in self._records:
            for origin, value, counts in zip(origins, is_preferred.tolist(), is_pair.tolist(), strict=True):
                sums = RecordSums(preferred=(float(value), float(counts)))
                found[origin] = found.get(origin, RecordSums()) + sums
        self._records = []
        return found

    def _add(self, name: str, values: Tensor) -> None:
        self.sums[_PLACES[name]] += values.double().sum()

    def compute(self) -> dict[str, float]:
        """Metrics named `preference_accuracy`, `nll/rejected`, ...; with a reference also `reward_margin`, ..."""
        sums = dict(zip(_SUMS, self.sums.tolist(), strict=True))
        means = {
            name: sums[total] / sums[count]
            for name, total, count in (
                ("preference_accuracy", "preferred", "pairs"),
                ("nll/rejected", "rejected_nats", "rejected_tokens"),
                ("preference_loss", "loss", "judged"),
                ("reward_accuracy", "rewarded", "rewarded_pairs"),
                ("reward/chosen", "chosen_reward", "chosen_answers"),
                ("reward/rejected", "rejected_reward", "rejected_answers"),
            )
            if sums[count]
        }
        if {"reward/chosen", "reward/rejected"} <= means.keys():
            means["reward_margin"] = means["reward/chosen"] - means["reward/rejected"]
        return means
