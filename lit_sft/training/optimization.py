"""AdamW (also in 8 bits), Muon or Adafactor, decay of matrices only, and learning-rate schedules with warm-up."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from data_modules.errors import UserError
from lit_sft.models.backbone import BackboneSettings
from lit_sft.training.muon import MuonAdamW, matrices_of_layers

Schedule = Literal["constant", "linear", "cosine", "wsd", "inverse_sqrt"]
DecayShape = Literal["linear", "sqrt"]

_MOMENTUM, _BETAS, _EPS = 0.95, (0.9, 0.999), 1e-8
_DECAY_RATIO = 0.2


@dataclass(frozen=True)
class OptimizerSettings:
    """The optimiser and its schedule.

    Attributes:
        lr: Peak learning rate. With `muon`, AdamW has the same one: Muon's updates are scaled to the size of AdamW's.
            With `adafactor`, it is relative to the size of each weight tensor (its root mean square, at least 0.001).
        weight_decay: Weight decay of matrices; biases, norms and scales are not decayed.
        betas: AdamW's decay rates of the averages of the gradient and of its square.
        eps: Added to AdamW's denominator.
        schedule: Shape of the schedule after the warm-up. `wsd` keeps the peak and decays in the last steps only;
            `inverse_sqrt` falls with the square root of the steps, from the end of the warm-up.
        min_lr_ratio: Final learning rate, as a fraction of `lr`; with `inverse_sqrt`, the lowest.
        warmup_steps: Optimiser steps of linear warm-up.
        warmup_ratio: Warm-up as a fraction of all steps. Set at most one of the two.
        name: `adamw`; `muon`, which updates the weight matrices of the layers with Muon and everything else
            (embeddings, head, norms, biases) with AdamW; `adafactor`, whose state is a row and a column for each
            matrix, instead of two matrices; or `adamw_8bit`, AdamW with averages of 8 bits, which needs bitsandbytes.
        momentum: Decay rate of Muon's average of the gradient.
        decay_steps: Optimiser steps of the decay of `wsd`.
        decay_ratio: The decay of `wsd` as a fraction of all steps, 0.2 if neither is set. Set at most one of the two.
        decay_shape: How the rate of `wsd` decays: `sqrt` is one minus the square root of the progress.
    """

    lr: float = 5e-5
    weight_decay: float = 0.0
    betas: tuple[float, float] = _BETAS
    eps: float = _EPS
    schedule: Schedule = "cosine"
    min_lr_ratio: float = 0.0
    warmup_steps: int | None = None
    warmup_ratio: float | None = None
    name: Literal["adamw", "muon", "adafactor", "adamw_8bit"] = "adamw"
    momentum: float = _MOMENTUM
    decay_steps: int | None = None
    decay_ratio: float | None = None
    decay_shape: DecayShape = "sqrt"

    def __post_init__(self) -> None:
        if self.warmup_steps is not None and self.warmup_ratio is not None:
            raise UserError(
                "--model.optimizer.warmup_steps and --model.optimizer.warmup_ratio are both set; expected one."
            )
        if self.lr <= 0:
            raise UserError(f"--model.optimizer.lr {self.lr}: expected a positive learning rate.")
        self._check_unused()
        self._check_schedule()
        for name in ("min_lr_ratio", "warmup_ratio", "decay_ratio"):
            if not 0 <= (getattr(self, name) or 0) <= 1:
                raise UserError(f"--model.optimizer.{name} {getattr(self, name)}: expected a fraction between 0 and 1.")
        if not all(0 <= beta < 1 for beta in self.betas) or self.eps < 0:
            raise UserError(
                f"--model.optimizer.betas {list(self.betas)}, eps {self.eps:g}: expected betas of at least 0 and below "
                "1, and eps of 0 or more."
            )
        if self.weight_decay < 0 or (self.warmup_steps or 0) < 0:
            raise UserError(
                f"--model.optimizer.weight_decay {self.weight_decay}, warmup_steps {self.warmup_steps}: expected both "
                "to be 0 or more."
            )

    def _check_unused(self) -> None:
        """Refuse settings that the chosen optimiser does not have."""
        if not 0 <= self.momentum < 1:
            raise UserError(f"--model.optimizer.momentum {self.momentum}: expected at least 0 and below 1.")
        if self.name != "muon" and self.momentum != _MOMENTUM:
            raise UserError(
                f"--model.optimizer.momentum {self.momentum}: only Muon has a momentum; AdamW's is the first of "
                "`--model.optimizer.betas`. Leave it out, or set `--model.optimizer.name muon`."
            )
        if self.name == "adafactor" and (tuple(self.betas), self.eps) != (_BETAS, _EPS):
            raise UserError(
                f"--model.optimizer.betas {list(self.betas)}, eps {self.eps:g}: Adafactor has neither. Leave them out, "
                "or set `--model.optimizer.name adamw`."
            )

    def _check_schedule(self) -> None:
        if self.schedule != "wsd" and (self.decay_steps, self.decay_ratio, self.decay_shape) != (None, None, "sqrt"):
            raise UserError(
                "--model.optimizer.decay_steps, decay_ratio and decay_shape are for `wsd` only, but "
                f"--model.optimizer.schedule is {self.schedule}. Leave them out, or set the schedule to wsd."
            )
        if self.decay_steps is not None and self.decay_ratio is not None:
            raise UserError(
                "--model.optimizer.decay_steps and --model.optimizer.decay_ratio are both set; expected one."
            )
        if self.decay_steps is not None and self.decay_steps < 0:
            raise UserError(f"--model.optimizer.decay_steps {self.decay_steps}: expected 0 or more.")
        if self.schedule == "constant" and self.min_lr_ratio:
            raise UserError(
                f"--model.optimizer.min_lr_ratio {self.min_lr_ratio}: with `--model.optimizer.schedule constant`, the "
                "rate does not fall. Set it to 0, or choose another schedule."
            )
        if self.schedule == "inverse_sqrt" and not (self.warmup_steps or self.warmup_ratio):
            raise UserError(
                "--model.optimizer.schedule inverse_sqrt falls from the end of the warm-up, but there is none. Set "
                "`--model.optimizer.warmup_steps`."
            )

    def identity(self) -> dict[str, Any]:
        """The settings that a run depends on. New ones only where they are used, so that older runs can be resumed."""
        unused = {"momentum"} if self.name != "muon" else set()
        unused |= {"name"} if self.name == "adamw" else set()
        unused |= {"decay_steps", "decay_ratio", "decay_shape"} if self.schedule != "wsd" else set()
        return {key: value for key, value in asdict(self).items() if key not in unused}

    def num_decay_steps(self, total_steps: int) -> int:
        """Steps of the decay of a `wsd` run with `total_steps`; those after its warm-up at most."""
        ratio = _DECAY_RATIO if self.decay_ratio is None else self.decay_ratio
        wanted = self.decay_steps if self.decay_steps is not None else round(ratio * total_steps)
        return min(wanted, max(0, total_steps - self.num_warmup_steps(total_steps)))

    def num_warmup_steps(self, total_steps: int) -> int:
        """Warm-up steps of a run with `total_steps`."""
        return self.warmup_steps if self.warmup_steps is not None else round((self.warmup_ratio or 0.0) * total_steps)


def build_optimizer(module: nn.Module, settings: OptimizerSettings, *, fused: bool = True) -> torch.optim.Optimizer:
    """The optimiser of the trainable parameters.

    Args:
        module: Module with the parameters.
        settings: Learning rate and so on.
        fused: Whether AdamW uses the fused kernel. It is five times faster, but cannot be combined with a gradient
            scaler and clipping.
    """
    matrices = matrices_of_layers(module) if settings.name == "muon" else []
    chosen = {id(parameter) for parameter in matrices}
    others = [p for p in module.parameters() if p.requires_grad and id(p) not in chosen]
    groups = _groups([p for p in others if p.dim() >= 2], settings.weight_decay) + _groups(
        [p for p in others if p.dim() < 2], 0.0
    )
    if settings.name == "adafactor":
        return torch.optim.Adafactor(groups, lr=settings.lr)
    if settings.name == "adamw_8bit":
        return _adamw_8bit()(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps)
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=fused)
    return MuonAdamW(
        _groups(matrices, settings.weight_decay),
        groups,
        lr=settings.lr,
        momentum=settings.momentum,
        betas=settings.betas,
        eps=settings.eps,
        fused=fused,
    )


def _adamw_8bit() -> Callable[..., torch.optim.Optimizer]:
    """bitsandbytes' AdamW, whose averages share a scale in blocks of 256 numbers.

    Source: Dettmers et al., 8-bit Optimizers via Block-wise Quantization, arXiv 2110.02861.

    Raises:
        UserError: If bitsandbytes is not installed.
    """
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        raise UserError(
            "--model.optimizer.name adamw_8bit: the package bitsandbytes is not installed; `pip install "
            "'lit_sft[8bit]'`."
        ) from None
    chosen: Callable[..., torch.optim.Optimizer] = AdamW8bit
    return chosen


def _groups(parameters: list[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """One group of parameters, or none."""
    return [{"params": parameters, "weight_decay": weight_decay}] if parameters else []


def check_optimizer(settings: OptimizerSettings, backbone: BackboneSettings, strategy: Strategy) -> None:
    """Refuse optimisers other than AdamW where they cannot see whole weight matrices.

    Raises:
        UserError: For Muon with LoRA, and for all of them with a strategy that splits matrices over processes.
    """
    if settings.name == "adamw":
        return
    if settings.name == "muon" and backbone.tuning == "lora":
        raise UserError(
            "--model.optimizer.name muon with `--model.backbone.tuning lora`: Muon makes the update of a whole weight "
            "matrix orthogonal, and an adapter is a product of two. Use adamw, or train all weights."
        )
    if not isinstance(strategy, SingleDeviceStrategy | DDPStrategy):
        raise UserError(
            f"--model.optimizer.name {settings.name} with {type(strategy).__name__}: it needs "
            "whole weight matrices, and this strategy splits them over processes. Use adamw, or DDP: `--config "
            "configs/overlays/ddp.yaml`."
        )


def build_schedule(optimizer: torch.optim.Optimizer, settings: OptimizerSettings, total_steps: int) -> LambdaLR:
    """The schedule over `total_steps` optimiser steps."""
    factor = partial(
        learning_rate_factor,
        schedule=settings.schedule,
        warmup_steps=settings.num_warmup_steps(total_steps),
        total_steps=total_steps,
        floor=settings.min_lr_ratio,
        decay_steps=settings.num_decay_steps(total_steps),
        decay_shape=settings.decay_shape,
    )
    return LambdaLR(optimizer, factor)


def options_of(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """The options of each parameter group: learning rate, decay, betas ..."""
    return [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]


def restore_options(optimizer: torch.optim.Optimizer, schedule: LambdaLR, options: list[dict[str, Any]]) -> None:
    """Apply the current settings to a resumed run.

    Restoring a checkpoint also restores its optimiser options, including a learning rate that is wrong if the run is
    longer now.

    Args:
        optimizer: With its state restored; changed in place.
        schedule: With its state restored; changed in place.
        options: The optimiser's options after `build_schedule`, before its state was restored.
    """
    schedule.base_lrs = [group["initial_lr"] for group in options]
    for group, own, factor in zip(optimizer.param_groups, options, schedule.lr_lambdas, strict=True):
        group.update(own, lr=own["initial_lr"] * factor(schedule.last_epoch))
    schedule._last_lr = [group["lr"] for group in optimizer.param_groups]


def learning_rate_factor(
    step: int,
    *,
    schedule: Schedule,
    warmup_steps: int,
    total_steps: int,
    floor: float = 0.0,
    decay_steps: int = 0,
    decay_shape: DecayShape = "sqrt",
) -> float:
    """Learning rate at a step (counted from 0), as a fraction of the peak.

    It rises from 1/warmup_steps to 1, then falls to `floor` at `total_steps` and stays there. With `wsd`, it falls in
    the last `decay_steps` only; with `inverse_sqrt`, it falls as 1/sqrt(step), never below `floor`.

    Source: `wsd`: Hu et al., "MiniCPM" (arXiv 2404.06395); its shape `sqrt`: Hägele et al., "Scaling Laws and
    Compute-Optimal Training Beyond Fixed Training Durations" (arXiv 2405.18392); `inverse_sqrt`: Vaswani et al.,
    "Attention Is All You Need" (arXiv 1706.03762), section 5.3.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule == "constant":
        return 1.0
    if schedule == "inverse_sqrt":
        return max(floor, math.sqrt(max(1, warmup_steps) / (step + 1)))
    start = total_steps - decay_steps if schedule == "wsd" else warmup_steps
    progress = min(1.0, max(0, step - start) / max(1, total_steps - start))
    if schedule == "cosine":
        remaining = (1 + math.cos(math.pi * progress)) / 2
    else:
        remaining = 1 - (math.sqrt(progress) if schedule == "wsd" and decay_shape == "sqrt" else progress)
    return floor + (1 - floor) * remaining
