"""What training minimises: a function of the model and a batch for each objective."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from data_modules.batching.batch import Batch
from data_modules.errors import UserError
from lit_sft.models.embedding_noise import noisy_embeddings
from lit_sft.models.loss import supervised_loss
from lit_sft.models.preferences import PreferenceLoss, PreferenceName, preference_sum
from lit_sft.models.token_loss import TokenLoss

ObjectiveName = Literal["next_token", "dft", "profit", "dpo", "apo_zero"]
Objective = Callable[[nn.Module, Batch], tuple[Tensor, Tensor]]

_THRESHOLD = 0.1
_BETA = 0.1


@dataclass(frozen=True)
class ObjectiveSettings:
    """What training minimises. Validation and test always measure the negative log-likelihood.

    Attributes:
        name: `next_token`: the negative log-likelihood of every supervised token; `dft`: the same times the token's own
            probability (dynamic fine-tuning); `profit`: only of tokens with at least the probability `threshold`;
            `dpo`: direct preference optimisation, on pairs with `chosen` and `rejected`; `apo_zero`: KTO's loss without
            its KL estimate, on pairs, and on answers rated one by one with a `label`.
        threshold: Lowest probability of a token that `profit` trains on, 0 to 1.
        beta: How strongly `dpo` and `apo_zero` count differences from the model before training: the smaller, the
            further the model moves away from it.
        label_smoothing: With `next_token`, share of each target that is spread evenly over the vocabulary; with `dpo`,
            probability that a preference is the wrong way round, below 0.5.
        kl_weight: Weight of the divergence KL(base || model) on the supervised tokens, in nats, which is added to the
            loss. The base is the model with its adapters switched off; if all weights are trained, a frozen copy, which
            takes as much memory as the weights. It costs one more forward pass.
        neftune_alpha: Magnitude of NEFTune's noise on the embeddings in training, such as 5: uniform up to alpha /
            sqrt(L * D) for a document of L tokens and embeddings of width D.
        desirable_weight: With `apo_zero`, weight of the loss of good answers.
        undesirable_weight: With `apo_zero`, weight of the loss of bad ones.
    """

    name: ObjectiveName = "next_token"
    threshold: float = _THRESHOLD
    beta: float = _BETA
    label_smoothing: float = 0.0
    kl_weight: float = 0.0
    neftune_alpha: float = 0.0
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0

    def __post_init__(self) -> None:
        for name, is_right, expected in (
            ("threshold", 0 <= self.threshold <= 1, "a probability between 0 and 1"),
            ("beta", 0 < self.beta < math.inf, "more than 0"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "at least 0 and below 1"),
            ("kl_weight", 0 <= self.kl_weight < math.inf, "0 or more"),
            ("neftune_alpha", 0 <= self.neftune_alpha < math.inf, "0 or more"),
            ("desirable_weight", 0 < self.desirable_weight < math.inf, "more than 0"),
            ("undesirable_weight", 0 < self.undesirable_weight < math.inf, "more than 0"),
        ):
            if not is_right:
                raise UserError(f"--model.objective.{name} {getattr(self, name)}: expected {expected}.")
        if self.name != "profit" and self.threshold != _THRESHOLD:
            raise UserError(
                f"--model.objective.threshold {self.threshold}: only ProFit has a threshold. Leave it out, or set "
                "`--model.objective.name profit`."
            )
        if self.name != "apo_zero" and (self.desirable_weight, self.undesirable_weight) != (1, 1):
            raise UserError(
                f"--model.objective.desirable_weight {self.desirable_weight}, undesirable_weight "
                f"{self.undesirable_weight}: only APO-zero has them. Leave them out, or set "
                "`--model.objective.name apo_zero`."
            )
        if self.is_preference:
            self._check_preference()
        elif self.beta != _BETA:
            raise UserError(
                f"--model.objective.beta {self.beta}: only DPO and APO-zero have a beta. Leave it out, or set "
                "`--model.objective.name dpo`."
            )
        elif self.name != "next_token" and self.label_smoothing:
            raise UserError(
                f"--model.objective.label_smoothing {self.label_smoothing} with `--model.objective.name {self.name}`: "
                "it weights tokens by their own probability, and smoothing would give weight to all others. Use one of "
                "the two."
            )

    def _check_preference(self) -> None:
        """Refuse settings that have no meaning for pairs."""
        if self.name != "dpo" and self.label_smoothing:
            raise UserError(
                f"--model.objective.label_smoothing {self.label_smoothing} with `--model.objective.name {self.name}`: "
                "it has none. Leave it out, or set `--model.objective.name dpo`."
            )
        if self.label_smoothing >= 0.5:
            raise UserError(
                f"--model.objective.label_smoothing {self.label_smoothing}: expected below 0.5, because with DPO it is "
                "the probability that a preference is the wrong way round."
            )
        for name in ("kl_weight", "neftune_alpha"):
            if getattr(self, name):
                raise UserError(
                    f"--model.objective.{name} {getattr(self, name)} with `--model.objective.name {self.name}`, which "
                    "already compares each answer with the model before training. Leave it out, or raise "
                    "`--model.objective.beta` to stay closer to that model."
                )

    @property
    def is_preference(self) -> bool:
        """Whether it trains on preferences: chosen and rejected answers."""
        return self.name in get_args(PreferenceName)

    @property
    def preference_loss(self) -> PreferenceLoss | None:
        """The loss of preference pairs; None if it trains on something else."""
        if self.name not in ("dpo", "apo_zero"):  # as mypy reads it
            return None
        return PreferenceLoss(
            self.beta, self.label_smoothing, self.name, self.desirable_weight, self.undesirable_weight
        )

    @property
    def needs_reference(self) -> bool:
        """Whether the model as it was before training is needed."""
        return self.kl_weight > 0 or self.is_preference

    @property
    def is_nll(self) -> bool:
        """Whether the objective is the negative log-likelihood itself, with or without noise."""
        return self.name == "next_token" and not self.label_smoothing and not self.kl_weight

    def identity(self) -> dict[str, Any]:
        """The settings that a run depends on, without those at their default, so that older runs can be resumed."""
        usual = asdict(ObjectiveSettings())
        return {name: value for name, value in asdict(self).items() if value != usual[name]}


def objective_of(settings: ObjectiveSettings) -> Objective:
    """The function to minimise.

    Args:
        settings: Which one.

    Returns:
        A function of a backbone and a batch, which returns what `supervised_loss` returns: the weighted sum of the
        losses, a scalar connected to the graph, and the plain nats of the targets. With `needs_reference`, the backbone
        must have passed through `keep_reference`.
    """
    if (loss := settings.preference_loss) is not None:

        def preference_objective(backbone: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
            return preference_sum(backbone, batch, loss)

        return preference_objective
    how, alpha = _token_loss(settings), settings.neftune_alpha
    if how == TokenLoss() and not alpha:
        return supervised_loss

    def training_objective(backbone: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        if not alpha:
            return supervised_loss(backbone, batch, how)
        with noisy_embeddings(backbone, batch, alpha):
            return supervised_loss(backbone, batch.unshared(), how)  # every document has noise of its own

    return training_objective


def _token_loss(settings: ObjectiveSettings) -> TokenLoss:
    factors = {"next_token": None, "dft": dft_factors, "profit": partial(profit_factors, threshold=settings.threshold)}
    return TokenLoss(settings.label_smoothing, factors[settings.name], settings.kl_weight)


def dft_factors(nll: Tensor) -> Tensor:
    """Dynamic fine-tuning weights a token by its own probability.

    Source: Wu et al., On the Generalization of SFT: A Reinforcement Learning Perspective with Reward Rectification,
    arXiv 2508.05629.

    Args:
        nll: Nats of the tokens, (n,).
    """
    return torch.exp(-nll)


def profit_factors(nll: Tensor, threshold: float) -> Tensor:
    """ProFit trains only on tokens that the model gives a probability of at least the threshold.

    The sum is divided by the number of all supervised tokens, those below the threshold too, as in the authors' code.

    Source: Liu et al., ProFit: Leveraging High-Value Signals in SFT via Probability-Guided Token Selection, arXiv
    2601.09195.

    Args:
        nll: Nats of the tokens, (n,).
        threshold: The lowest probability.
    """
    return (torch.exp(-nll) >= threshold).to(nll.dtype)
