"""Preference tuning: the objectives on pairs of a chosen and a rejected answer, and on answers rated one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_modules.batching.batch import Batch
from lit_sft.models.loss import loss_of_nll, reference_nll

PreferenceName = Literal["dpo", "apo_zero"]


@dataclass(frozen=True)
class PreferenceLoss:
    """The rewards and losses of a preference objective.

    Attributes:
        beta: How strongly differences from the reference model count.
        label_smoothing: DPO's probability that a preference is the wrong way round.
        name: The objective.
        desirable_weight: Weight of chosen answers in `apo_zero`.
        undesirable_weight: Weight of rejected answers in `apo_zero`.
    """

    beta: float
    label_smoothing: float = 0.0
    name: PreferenceName = "dpo"
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0

    def __call__(self, nll: Tensor, reference: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The rewards of both answers of each pair, and its loss.

        An answer's reward is beta times the log of how much likelier the model makes it than the reference does.

        Args:
            nll: (N,) nats of `batch.targets`.
            reference: The same under the reference model.
            batch: P preference pairs; for `apo_zero`, some may have only one answer.

        Returns:
            (P, 2) rewards, of the chosen and the rejected answers, in nats, 0 where there is none; and (P,) losses.
        """
        rewards = self.beta * batch.pair_sums(reference - nll)
        if self.name == "dpo":
            return rewards, dpo_losses(rewards, self.label_smoothing)
        return rewards, apo_zero_losses(rewards, batch.answered, self.desirable_weight, self.undesirable_weight)


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


def apo_zero_losses(rewards: Tensor, answered: Tensor, desirable_weight: float, undesirable_weight: float) -> Tensor:
    """The loss of each pair, answer by answer: one minus the sigmoid of a chosen reward, the sigmoid of a rejected one.

    It is KTO's loss with the reward of the reference fixed at 0, instead of estimated from mismatched prompts and
    answers.

    Source: D'Oosterlinck et al., Anchored Preference Optimization, arXiv 2408.06266, equation 7 (APO-zero); of single
    answers and with weights: Ethayarajh et al., KTO, arXiv 2402.01306, equation 8, with z_0 = 0.

    Args:
        rewards: (P, 2), of the chosen and of the rejected answers.
        answered: (P, 2), whether there is such an answer.
        desirable_weight: Weight of chosen answers.
        undesirable_weight: Weight of rejected answers.

    Returns:
        (P,), between 0 and the sum of the weights.
    """
    losses = torch.sigmoid(torch.stack([-rewards[:, 0], rewards[:, 1]], 1))
    return (losses * answered * losses.new_tensor([desirable_weight, undesirable_weight])).sum(1)


def preference_sum(backbone: nn.Module, batch: Batch, loss: PreferenceLoss) -> tuple[Tensor, Tensor]:
    """The sum of the losses over the pairs and rated answers of a batch.

    Args:
        backbone: A causal language model, with adapters or after `keep_reference`.
        batch: Preference pairs, with N targets.
        loss: The loss of a pair.

    Returns:
        The sum, a scalar to call backward on, connected to the graph even without pairs; and the (N,) nats of the
        targets, without gradients.
    """
    assert batch.preferences is not None, "not a batch of pairs"
    reference = reference_nll(backbone, batch)
    assert reference is not None, "keep_reference was not called"
    return loss_of_nll(backbone, batch, lambda nll: loss(nll, reference, batch)[1].sum())
