"""AdamW with weight decay on matrices only, and learning-rate schedules with warm-up."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from data_modules.errors import UserError

Schedule = Literal["constant", "linear", "cosine"]


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW and its schedule.

    Attributes:
        lr: Highest learning rate.
        weight_decay: Decay of matrices; biases, norms and scales are not decayed.
        betas: Averaging of the gradient and of its square.
        eps: Added to the denominator.
        schedule: What follows the warm-up.
        min_lr_ratio: Where the schedule ends, as a share of `lr`.
        warmup_steps: Optimiser steps of linear warm-up.
        warmup_ratio: The same as a share of all steps. Give one of the two.
    """

    lr: float = 5e-5
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    schedule: Schedule = "cosine"
    min_lr_ratio: float = 0.0
    warmup_steps: int | None = None
    warmup_ratio: float | None = None

    def __post_init__(self) -> None:
        if self.warmup_steps is not None and self.warmup_ratio is not None:
            raise UserError(
                "--model.optimizer.warmup_steps and --model.optimizer.warmup_ratio are both given; expected one."
            )
        if self.lr <= 0:
            raise UserError(f"--model.optimizer.lr {self.lr}: expected a positive learning rate.")
        for name in ("min_lr_ratio", "warmup_ratio"):
            if not 0 <= (getattr(self, name) or 0) <= 1:
                raise UserError(f"--model.optimizer.{name} {getattr(self, name)}: expected a share between 0 and 1.")
        if self.weight_decay < 0 or (self.warmup_steps or 0) < 0:
            raise UserError(
                f"--model.optimizer.weight_decay {self.weight_decay}, warmup_steps {self.warmup_steps}: expected 0 or "
                "more of both."
            )

    def num_warmup_steps(self, total_steps: int) -> int:
        """Steps of warm-up in a run of `total_steps`."""
        return self.warmup_steps if self.warmup_steps is not None else round((self.warmup_ratio or 0.0) * total_steps)


def build_optimizer(module: nn.Module, settings: OptimizerSettings, *, fused: bool = True) -> torch.optim.AdamW:
    """AdamW over the trainable parameters.

    Args:
        module: Whose parameters.
        settings: Learning rate and the rest.
        fused: Whether to use the fused kernel, five times faster; a gradient scaler with clipping forbids it.
    """
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trainable if p.dim() >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trainable if p.dim() < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=fused)


def build_schedule(optimizer: torch.optim.Optimizer, settings: OptimizerSettings, total_steps: int) -> LambdaLR:
    """The schedule over `total_steps` optimiser steps."""
    factor = partial(
        learning_rate_factor,
        schedule=settings.schedule,
        warmup_steps=settings.num_warmup_steps(total_steps),
        total_steps=total_steps,
        floor=settings.min_lr_ratio,
    )
    return LambdaLR(optimizer, factor)


def options_of(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Everything but the parameters of each group: learning rate, decay, betas ..."""
    return [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]


def restore_options(optimizer: torch.optim.Optimizer, schedule: LambdaLR, options: list[dict[str, Any]]) -> None:
    """Let the present settings hold in a resumed run.

    A checkpoint brings back the options of its own run, among them a learning rate that belongs to another schedule if
    the run is longer now.

    Args:
        optimizer: With its state restored; changed in place.
        schedule: Likewise; its step counts.
        options: Those of the optimiser before its state was restored, after `build_schedule`.
    """
    schedule.base_lrs = [group["initial_lr"] for group in options]
    for group, own, factor in zip(optimizer.param_groups, options, schedule.lr_lambdas, strict=True):
        group.update(own, lr=own["initial_lr"] * factor(schedule.last_epoch))
    schedule._last_lr = [group["lr"] for group in optimizer.param_groups]


def learning_rate_factor(
    step: int, *, schedule: Schedule, warmup_steps: int, total_steps: int, floor: float = 0.0
) -> float:
    """Share of the highest learning rate at a step, counted from 0.

    It rises from 1/warmup_steps to 1, then falls to `floor` at `total_steps` and stays there.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule == "constant":
        return 1.0
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    remaining = 1 - progress if schedule == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return floor + (1 - floor) * remaining
