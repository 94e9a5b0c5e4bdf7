"""The learning-rate range test: how the loss changes while the learning rate grows from step to step.

Source: Smith, "Cyclical Learning Rates for Training Neural Networks" (arXiv 1506.01186), section 3.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from data_modules.batching.batch import Batch
from lit_sft.training.finite_guard import FiniteGuard
from lit_sft.training.module import LitCausalLM
from lit_sft.training.sharding import score

MARGIN = 3.0
"""How far the suggestion is below the learning rate with the lowest loss. A rule of thumb."""

_LEAST_FALL = 0.01
"""The loss must fall by this share of its first value."""


@dataclass(frozen=True, slots=True)
class Point:
    """One optimiser step of a range test.

    Attributes:
        lr: Its learning rate.
        loss: The mean loss of its batches before the step, as training minimises it.
        change: The same, less the loss that the initial weights have on these batches. Unlike the loss, it does not
            depend on how difficult the batches are.
    """

    lr: float
    loss: float
    change: float


class RangeTest(FiniteGuard):
    """Raises the learning rate from step to step, evenly on a log scale, and notes the loss of each step.

    It takes the place of the schedule and of FiniteGuard: a loss that is not finite ends the test, not the command.
    The test ends early when the loss has risen as far as it had fallen. Lightning's Tuner reads `loss` of
    `training_step`, which is the share of the last micro-batch only, so it does not see the loss of a step.

    Args:
        lowest: Learning rate of the first step.
        highest: Learning rate of the last step.
        steps: Optimiser steps, at least 2.
    """

    def __init__(self, lowest: float, highest: float, steps: int) -> None:
        super().__init__()
        self.lowest, self.highest, self.steps = lowest, highest, steps
        self.points: list[Point] = []
        self._initial: list[Tensor] = []
        self._sums: list[Tensor] = []

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        return float(self.lowest * (self.highest / self.lowest) ** (step / (self.steps - 1)))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the schedule, and keep a copy of the weights that are trained."""
        trainer.strategy.lr_scheduler_configs = []
        self._initial = [parameter.detach().clone() for parameter in _trained(pl_module)]

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: list[Batch], batch_idx: int
    ) -> None:
        """Set the learning rate of the step, and measure the batch with the initial weights."""
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = self.rate(trainer.global_step)
        pl_module.on_train_batch_start(batch, batch_idx)  # seeds dropout and noise, which must be those of the step
        self._swap(pl_module)
        self._before = self._loss_of(trainer, pl_module, batch)
        self._swap(pl_module)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Do nothing: a loss that is not finite ends the test after its step."""

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Do nothing."""

    def check(self, trainer: Trainer, module: LightningModule) -> None:
        """Do nothing."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: list[Batch], batch_idx: int
    ) -> None:
        """Note the loss of the step after its last batch, and end the test if the loss diverges."""
        self._sums.append(torch.stack([outputs["total"], self._before, outputs["weight"]]).double())
        if trainer.global_step == len(self.points):
            return  # more batches of the step follow
        total, before, weight = torch.stack(self._sums).sum(0).tolist()
        self._sums = []
        rate = self.rate(len(self.points))
        self.points.append(Point(rate, total / weight, (total - before) / weight) if weight else Point(rate, 0.0, 0.0))
        if not math.isfinite(total) or has_diverged(self.points, self.steps):
            trainer.should_stop = True

    def _swap(self, module: LightningModule) -> None:
        for index, parameter in enumerate(_trained(module)):
            parameter.data, self._initial[index] = self._initial[index], parameter.data

    def _loss_of(self, trainer: Trainer, module: LightningModule, batch: list[Batch]) -> Tensor:
        assert isinstance(module, LitCausalLM)
        with torch.no_grad(), torch.random.fork_rng(), trainer.precision_plugin.forward_context():
            return torch.stack([score(module.objective, module.backbone, part)[0] for part in batch]).sum()


def _trained(module: LightningModule) -> list[torch.nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def smoothed(points: list[Point], steps: int) -> list[float]:
    """The change of the loss at each point: the mean over the neighbouring steps.

    Args:
        points: The points of the test so far.
        steps: Steps of the whole test; a twelfth of them is averaged.
    """
    reach = max(1, steps // 25)
    changes = np.array([point.change for point in points])
    return [float(changes[max(0, at - reach) : at + reach + 1].mean()) for at in range(len(changes))]


def has_diverged(points: list[Point], steps: int) -> bool:
    """Whether the loss has risen, from its lowest value, by as much as it had fallen."""
    reach = max(1, steps // 25)
    if len(points) <= 2 * reach:
        return False
    *earlier, last = smoothed(points, steps)[: len(points) - reach]
    low = min(earlier)
    return last - low > max(-low, 0.1 * points[0].loss)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What a range test suggests.

    Attributes:
        lr: The learning rate; None if the test suggests none.
        reason: Why.
    """

    lr: float | None
    reason: str


def suggest(points: list[Point], steps: int) -> Suggestion:
    """Suggest a peak learning rate: a third of the one with the lowest loss.

    Args:
        points: All points of the test.
        steps: Steps that the test was to take.
    """
    finite = [point for point in points if math.isfinite(point.change)]
    changes = smoothed(finite, steps)
    reach = max(1, steps // 25)
    if len(changes) <= 2 * reach:
        return Suggestion(None, "the loss diverged at once; lower `--min_lr`")
    at = int(np.argmin(changes))
    first, low, rate = finite[0].loss, changes[at], finite[at].lr
    if -low < _LEAST_FALL * first:
        return Suggestion(None, "the loss fell at no learning rate; raise `--max_lr` or `--steps`")
    if at >= len(changes) - 1 - reach and len(points) == steps:
        return Suggestion(None, f"the loss was still falling at {finite[-1].lr:.2g}; raise `--max_lr`")
    if at <= reach:
        return Suggestion(None, f"the loss rose from {finite[0].lr:.2g} on; lower `--min_lr`")
    return Suggestion(
        _rounded(rate / MARGIN),
        f"the loss is lowest at {rate:.2g}, {-low:.2f} below that of the initial weights, and rises beyond; a third of "
        "that rate keeps a distance",
    )


def _rounded(rate: float) -> float:
    """Two significant digits, which is more than the test can tell."""
    return float(f"{rate:.1e}")
