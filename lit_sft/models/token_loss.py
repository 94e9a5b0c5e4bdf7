"""How the loss of a target follows from the logits that predict it: the part in which the objectives differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenLoss:
    """The loss of one target. As it stands, its negative log-likelihood.

    With p the model's probabilities, r those of the reference model, V entries and a target t, the loss is

        factor * ((1 - smoothing) * -log p[t] + smoothing * mean over v of -log p[v]) + kl_weight * KL(r || p)

    Attributes:
        smoothing: Share of the target that is spread evenly over all V entries, as in torch's `cross_entropy`.
        factor_of: The factors of (n,) targets, from their nats; they have no gradient. None: 1.
        kl_weight: Weight of the Kullback-Leibler divergence of the model from a reference model.
    """

    smoothing: float = 0.0
    factor_of: Callable[[Tensor], Tensor] | None = None
    kl_weight: float = 0.0

    def factors(self, nll: Tensor) -> Tensor:
        """The factors of (n,) targets, without gradients."""
        return torch.ones_like(nll) if self.factor_of is None else self.factor_of(nll.detach()).to(nll.dtype)


class Reference(NamedTuple):
    """What a plain head needs to compute the logits of a reference model.

    Attributes:
        hidden_states: Its hidden states that predict the tokens, (N, D).
        weight: Weight of its head, (V, D).
        bias: Bias of its head, (V,), or None.
    """

    hidden_states: Tensor
    weight: Tensor
    bias: Tensor | None


def loss_and_gradient(
    logits: Tensor, ids: Tensor, shares: Tensor, how: TokenLoss, reference: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The losses of (n,) tokens, their nats, and the gradient of the weighted sum of the losses.

    Every loss is a cross-entropy to a mixture of at most three distributions: the target itself, the even one, and the
    reference model's. The gradient is the mixture's weight times the softmax, less the mixture.

    Args:
        logits: (n, V), overwritten: the gradient reuses their memory.
        ids: The tokens, (n,) int64.
        shares: Weight of each token in the sum, (n,).
        how: The loss of a token.
        reference: Logits of the reference model, (n, V), overwritten; None without `kl_weight`.

    Returns:
        (n,) losses, (n,) nats and the (n, V) gradient.
    """
    # every pass over V columns is expensive: one exponential serves both the sum and the gradient
    target, shares = ids.unsqueeze(1), shares.unsqueeze(1).to(logits.dtype)
    highest = logits.amax(1, keepdim=True)
    wanted = logits.gather(1, target)
    mean = logits.mean(1, keepdim=True) if how.smoothing else None
    cross = None if reference is None else _cross_terms(logits, reference)
    powers = logits.sub_(highest).exp_()
    total = powers.sum(1, keepdim=True)
    log_total = total.log() + highest
    nll = log_total - wanted
    factors = how.factors(nll)
    factor = factors * shares
    weight = factor if cross is None else factor + how.kl_weight * shares
    gradient = powers.mul_(weight / total)
    gradient.scatter_add_(1, target, factor * (how.smoothing - 1))
    loss = nll
    if mean is not None:
        gradient.sub_(factor * (how.smoothing / logits.shape[1]))
        loss = (1 - how.smoothing) * nll + how.smoothing * (log_total - mean)
    loss = factors * loss
    if cross is not None:
        probabilities, gap = cross
        loss = loss + how.kl_weight * (gap + log_total)
        gradient.sub_(probabilities.mul_(how.kl_weight * shares))
    return loss.squeeze(1), nll.squeeze(1), gradient


def _cross_terms(logits: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """The (n, V) probabilities r of the reference model, and the (n, 1) sums of r * (log r - logits)."""
    log_probabilities = torch.log_softmax(reference, 1)
    probabilities = torch.exp(log_probabilities, out=reference)
    return probabilities, log_probabilities.sub_(logits).mul_(probabilities).sum(1, keepdim=True)


def token_losses(logits: Tensor, ids: Tensor, how: TokenLoss, reference: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The same losses with autograd, for heads that are more than a matrix product.

    Args:
        logits: (n, V).
        ids: The tokens, (n,) int64.
        how: The loss of a token.
        reference: Logits of the reference model, (n, V); None without `kl_weight`.

    Returns:
        (n,) losses, and (n,) nats without gradients.
    """
    log_probabilities = torch.log_softmax(logits, 1)
    nll = -log_probabilities.gather(1, ids.unsqueeze(1)).squeeze(1)
    loss = nll
    if how.smoothing:
        loss = (1 - how.smoothing) * nll - how.smoothing * log_probabilities.mean(1)
    loss = how.factors(nll) * loss
    if reference is not None:
        wanted = torch.log_softmax(reference, 1)
        loss = loss + how.kl_weight * (wanted.exp() * (wanted - log_probabilities)).sum(1)
    return loss, nll.detach()
