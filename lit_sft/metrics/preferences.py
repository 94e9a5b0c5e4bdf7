"""Preference pairs: how often, and by how much, a model prefers the chosen answer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
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


def rewards_of(nll: Tensor, reference: Tensor, batch: Batch, beta: float) -> Tensor:
    """What DPO rewards an answer with: beta times how much likelier the model makes it than the reference does.

    Args:
        nll: (N,) nats of `batch.targets`.
        reference: The same under the reference model.
        batch: Preference pairs.
        beta: How strongly differences from the reference count.

    Returns:
        (P, 2): the rewards of the chosen and of the rejected answer of each pair, in nats.
    """
    return beta * batch.pair_sums(reference - nll)


def dpo_losses(rewards: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """The loss of each pair: how unlikely its preference is if the difference of the rewards is its log-odds.

    Source: Rafailov et al., Direct Preference Optimization, arXiv 2305.18290, equation 7; with smoothing: Mitchell, A
    note on DPO with noisy preferences (conservative DPO), equation 3.

    Args:
        rewards: (P, 2), of the chosen and of the rejected answers.
        label_smoothing: Probability that a preference is the wrong way round.

    Returns:
        (P,) nats.
    """
    margins = rewards[:, 0] - rewards[:, 1]
    losses = -F.logsigmoid(margins)
    return losses + label_smoothing * margins if label_smoothing else losses  # log s(m) - log s(-m) = m


class PreferenceMetrics(ExactSumMetric):
    """Metrics of preference pairs.

    Args:
        beta: DPO's.
        label_smoothing: DPO's.
        by_record: Whether to also keep which records' chosen answers are likelier, for `take_records`.
    """

    sums: Tensor

    def __init__(self, beta: float, label_smoothing: float, *, by_record: bool = False) -> None:
        super().__init__()
        self.beta, self.label_smoothing, self.by_record = beta, label_smoothing, by_record
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
        if reference is None:
            return
        rewards = rewards_of(nll, reference, batch, self.beta)
        self._add("rewarded_pairs", tokens[:, 0] > 0)
        self._add("rewarded", rewards[:, 0] > rewards[:, 1])
        self._add("chosen_reward", rewards[:, 0])
        self._add("rejected_reward", rewards[:, 1])
        self._add("loss", dpo_losses(rewards, self.label_smoothing))

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
