"""Direct preference optimisation: the objective on pairs of a chosen and a rejected answer."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from data_modules.batching.batch import Batch
from lit_sft.models.loss import loss_of_nll, reference_nll


@dataclass(frozen=True)
class PreferenceLoss:
    """DPO's rewards and losses.

    Attributes:
        beta: How strongly differences from the reference model count.
        label_smoothing: Probability that a preference is the wrong way round.
    """

    beta: float
    label_smoothing: float = 0.0

    def __call__(self, nll: Tensor, reference: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The rewards of both answers of each pair, and its loss.

        An answer's reward is beta times the log of how much likelier the model makes it than the reference does.

        Args:
            nll: (N,) nats of `batch.targets`.
            reference: The same under the reference model.
            batch: P preference pairs.

        Returns:
            (P, 2) rewards, of the chosen and the rejected answers, and (P,) losses, both in nats.
        """
        rewards = self.beta * batch.pair_sums(reference - nll)
        return rewards, dpo_losses(rewards, self.label_smoothing)


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


def preference_sum(backbone: nn.Module, batch: Batch, loss: PreferenceLoss) -> tuple[Tensor, Tensor]:
    """The sum of the losses over the pairs of a batch.

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
