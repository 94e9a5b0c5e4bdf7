"""Histograms of weights and gradients, in TensorBoard."""

from __future__ import annotations

from collections.abc import Callable

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from callbacks.output import writers
from data_modules.errors import UserError


class WeightHistograms(Callback):
    """Logs the histograms of every trained weight tensor and its gradient, before clipping, to TensorBoard.

    The files grow: each tensor takes about 2 kB every time.

    Args:
        every_n_steps: Optimiser steps between histograms, from the first step on.
        gradients: Whether to log gradients too.

    Raises:
        UserError: If `every_n_steps` is below 1, no logger draws histograms, or weights are split over processes.
    """

    def __init__(self, every_n_steps: int = 100, gradients: bool = True) -> None:
        if every_n_steps < 1:
            raise UserError(f"WeightHistograms every_n_steps {every_n_steps}: expected at least 1.")
        self.every_n_steps, self.gradients = every_n_steps, gradients

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that there is something to draw, and where to draw it."""
        if any(isinstance(parameter, DTensor) for parameter in pl_module.parameters()):
            raise UserError(
                "WeightHistograms needs whole weight tensors, and this strategy splits them over processes; remove it."
            )
        if trainer.is_global_zero and not list(writers(trainer, "add_histogram")):
            raise UserError(
                "WeightHistograms draws in TensorBoard, which this run does not log to; add it "
                "(`--run.loggers [tensorboard]`), or remove the callback."
            )

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Log the histograms, if due."""
        if trainer.global_step % self.every_n_steps:
            return
        for add_histogram in writers(trainer, "add_histogram"):
            for name, parameter in pl_module.named_parameters():
                if not parameter.requires_grad:
                    continue
                _add(add_histogram, f"weights/{name}", parameter.detach(), trainer.global_step)
                if self.gradients and parameter.grad is not None:
                    _add(add_histogram, f"gradients/{name}", parameter.grad, trainer.global_step)


def _add(add_histogram: Callable[..., None], name: str, values: Tensor, step: int) -> None:
    """Log one histogram. A gradient that overflowed under fp16 has values that are not finite; they are left out."""
    finite = values.float()[values.isfinite()]
    if finite.numel():
        add_histogram(name, finite.cpu(), step)
