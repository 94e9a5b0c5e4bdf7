"""A plain PyTorch training loop for language models in the style of nanoGPT, to compare lit_sft with.

Nothing here uses lit_sft or Lightning: transformers' model with torch's attention, all logits, torch's cross-entropy,
AdamW with decay on matrices, warm-up and cosine, accumulation and clipping.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel


@dataclass(frozen=True)
class Recipe:
    """Settings of the loop.

    Attributes:
        lr: Peak learning rate.
        min_lr_ratio: Final learning rate, as a fraction of `lr`.
        warmup_steps: Steps of linear warm-up.
        total_steps: Step at which the learning rate reaches its minimum.
        weight_decay: Weight decay of matrices.
        betas: AdamW's betas.
        eps: AdamW's eps.
        clip: Maximum norm of the gradient. None: no clipping.
        bf16: Whether to compute in bfloat16 by autocast.
    """

    lr: float
    min_lr_ratio: float
    warmup_steps: int
    total_steps: int
    weight_decay: float
    betas: tuple[float, float]
    eps: float
    clip: float | None
    bf16: bool = False

    def lr_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        if step < self.warmup_steps:
            return self.lr * (step + 1) / self.warmup_steps
        done = min(1.0, (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps))
        lowest = self.lr * self.min_lr_ratio
        return lowest + 0.5 * (1.0 + math.cos(math.pi * done)) * (self.lr - lowest)


class PlainLoop:
    """The loop, one optimiser step per call.

    Args:
        model: The model to train; its weights are copied.
        recipe: The settings.
        compiled: Whether to compile the model with torch.compile.
    """

    def __init__(self, model: PreTrainedModel, recipe: Recipe, *, compiled: bool = False) -> None:
        self.recipe, self.num_steps = recipe, 0
        self.device = next(model.parameters()).device
        config = copy.deepcopy(model.config)
        self.model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa")
        self.model.load_state_dict(model.state_dict())
        self.model.to(self.device).train()
        decayed = [p for p in self.model.parameters() if p.dim() >= 2]
        others = [p for p in self.model.parameters() if p.dim() < 2]
        groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas, eps=recipe.eps, fused=True)
        self._forward: nn.Module = torch.compile(self.model) if compiled else self.model  # type: ignore[assignment]

    def step(self, micro_batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
        """Train on the blocks of one optimiser step.

        Args:
            micro_batches: Blocks of tokens, (B, T) int64 each. Every token but a block's first is a target.

        Returns:
            The mean loss before the step, and the norm of the gradient before clipping; on the device.
        """
        micro_batches = list(micro_batches)
        num_targets = sum(ids[:, 1:].numel() for ids in micro_batches)
        total = torch.zeros((), device=self.device)
        for ids in micro_batches:
            with self._autocast():
                logits = self._forward(input_ids=ids, use_cache=False).logits
            targets = ids[:, 1:].flatten()
            nats = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), targets, reduction="sum")
            (nats / num_targets).backward()
            total += nats.detach()
        limit = math.inf if self.recipe.clip is None else self.recipe.clip
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.lr_at(self.num_steps)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.num_steps += 1
        return total / num_targets, norm

    def _autocast(self) -> contextlib.AbstractContextManager[None]:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.recipe.bf16)
