"""Direct preference optimisation: the objective on pairs of a chosen and a rejected answer."""

from __future__ import annotations

from torch import Tensor, nn

from data_modules.batching.batch import Batch
from lit_sft.metrics.preferences import dpo_losses, rewards_of
from lit_sft.models.loss import loss_of_nll, reference_nll


def dpo_loss(backbone: nn.Module, batch: Batch, *, beta: float, label_smoothing: float) -> tuple[Tensor, Tensor]:
    """The sum of DPO's losses over the pairs of a batch.

    Args:
        backbone: A causal language model, with adapters or after `keep_reference`.
        batch: Preference pairs, with N targets.
        beta: How strongly differences from the reference model count.
        label_smoothing: Probability that a preference is the wrong way round.

    Returns:
        The sum, a scalar to call backward on, connected to the graph even without pairs; and the (N,) nats of the
        targets, without gradients.
    """
    assert batch.preferences is not None, "not a batch of pairs"
    reference = reference_nll(backbone, batch)
    assert reference is not None, "keep_reference was not called"

    def _sum(nll: Tensor) -> Tensor:
        return dpo_losses(rewards_of(nll, reference, batch, beta), label_smoothing).sum()

    return loss_of_nll(backbone, batch, _sum)
