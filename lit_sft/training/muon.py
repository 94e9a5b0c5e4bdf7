"""Muon for the weight matrices of the layers and AdamW for everything else, as one optimiser.

Source: Keller Jordan, "Muon: An optimizer for hidden layers in neural networks" (2024). The update is scaled as in
"Muon is Scalable for LLM Training" (arXiv 2502.16982), so that its size matches AdamW's at the same learning rate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

Groups = list[dict[str, Any]]


class MuonAdamW(Optimizer):
    """Muon and AdamW behind the interface of one optimiser, for schedules, clipping and checkpoints.

    Args:
        matrices: The groups that Muon updates.
        others: The groups that AdamW updates.
        lr: Learning rate of both.
        momentum: Decay rate of Muon's average of the gradient.
        betas: Decay rates of AdamW's averages.
        eps: Added to AdamW's denominator.
        fused: Whether AdamW uses its fused kernel.
    """

    def __init__(
        self,
        matrices: Groups,
        others: Groups,
        *,
        lr: float,
        momentum: float,
        betas: tuple[float, float],
        eps: float,
        fused: bool,
    ) -> None:
        self._muon = Muon(matrices, lr=lr, momentum=momentum, adjust_lr_fn="match_rms_adamw")
        self._adamw = AdamW(others, lr=lr, betas=betas, eps=eps, fused=fused)
        super().__init__([*self._muon.param_groups, *self._adamw.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every weight once, after calling the closure if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # loading a checkpoint replaces the groups and the state of this object
        count = len(self._muon.param_groups)
        self._muon.param_groups, self._adamw.param_groups = self.param_groups[:count], self.param_groups[count:]
        for part in (self._muon, self._adamw):
            part.state = self.state
            part.step()  # type: ignore[no-untyped-call]
        return loss


def matrices_of_layers(module: nn.Module) -> list[nn.Parameter]:
    """The trainable weight matrices that Muon updates: those of linear layers except the vocabulary head.

    Embeddings, norms and biases are not among them, and neither is the head, tied or not.

    Args:
        module: A model, or a module that contains one.
    """
    models = [part for part in module.modules() if isinstance(part, PreTrainedModel)]
    ends = [end for model in models for end in (model.get_input_embeddings(), model.get_output_embeddings())]
    outside = {id(end.weight) for end in ends if end is not None}
    linear: list[Any] = [part.weight for part in module.modules() if isinstance(part, nn.Linear | Conv1D)]
    weights = {id(weight): weight for weight in linear if weight.requires_grad}
    return [weight for key, weight in weights.items() if key not in outside]
