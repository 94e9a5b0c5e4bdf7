"""Prints what a run will do before its first step: steps, batches, validations, checkpoints, and their cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import nn

from data_modules.wording import counted
from lit_sft.models.continued_adapter import described
from lit_sft.models.quantization import parameter_sizes
from lit_sft.training.module import LitCausalLM
from lit_sft.training.new_tokens import lines_about
from lit_sft.training.preemption import RunKeeper

_SHOWN = 4
"""Validations listed by step."""

_TRAINING = 3
"""Cost of a token in training, relative to validation: the backward pass takes twice as long as the forward pass."""

_GENERATION = 32
"""Rule of thumb: generating one token for a batch of rows takes about as long as reading this many tokens."""


@runtime_checkable
class Generates(Protocol):
    """A callback that generates text at validations."""

    def generation_steps(self) -> float:
        """Maximum number of generation steps per validation; a step adds one token to each row of a batch."""


@dataclass(frozen=True)
class RunPlan:
    """What a run will do.

    Attributes:
        steps: Optimiser steps in total, including those before an interruption.
        steps_by: Steps that each limit alone would give: `--trainer.max_epochs` and `--trainer.max_steps`.
        steps_per_epoch: Optimiser steps per epoch.
        batch_size: Examples per micro-batch.
        accumulate: Micro-batches per step and device.
        devices: Number of devices.
        validations: Optimiser steps after which the run validates; 0 is before training. None: validation by time.
        rows: Rows per validation.
        tokens: Tokens per validation.
        generated: Maximum number of generation steps of callbacks per validation.
        trained: Tokens read in training.
    """

    steps: int
    steps_by: dict[str, int]
    steps_per_epoch: int
    batch_size: int
    accumulate: int
    devices: int
    validations: list[int] | None
    rows: int
    tokens: int
    generated: float
    trained: float

    def lines(self) -> list[str]:
        """The plan in two lines."""
        examples = self.batch_size * self.accumulate * self.devices
        epochs = self.steps / self.steps_per_epoch
        many = f"{self.batch_size} x {self.accumulate} accumulated x {counted(self.devices, 'device')}"
        others = [f"{name} alone would give {of:,}" for name, of in self.steps_by.items() if of > self.steps]
        training = [
            f"{counted(self.steps, 'step')} of {counted(examples, 'example')} ({many})",
            f"{epochs:.3g} epoch{'s' * (epochs != 1)} of {counted(self.steps_per_epoch, 'step')}",
            *others,
        ]
        return [", ".join(training), self._validation_line()]

    def warning(self) -> str | None:
        """What to change if validation takes longer than training; None if it does not."""
        count = len(self.validations or [])
        cost = self.tokens + _GENERATION * self.generated
        if not self.trained or count * cost <= _TRAINING * self.trained:
            return None
        generated = f", up to {count * self.generated:,.0f} steps of generation" if self.generated else ""
        return (
            f"validation will take longer than training: {counted(count, 'validation')} "
            f"({count * self.tokens:,} tokens read{generated}) for {counted(self.steps, 'step')} "
            f"({self.trained:,.0f} tokens read). {self._advice(cost)}"
        )

    def _validation_line(self) -> str:
        if self.validations is None:
            return f"validations of {self.rows:,} rows at time intervals"
        if not self.validations:
            return "no validation"
        after = [step for step in self.validations if step]
        listed = [f"{step:,}" for step in after]
        if len(listed) > _SHOWN + 1:
            listed = [*listed[:_SHOWN], "...", listed[-1]]
        places = [
            *(["before training"] if 0 in self.validations else []),
            *([f"after step{'s' * (len(after) > 1)} {', '.join(listed)}"] if after else []),
        ]
        count = counted(len(self.validations), "validation")
        return f"{count} of {counted(self.rows, 'row')}, {' and '.join(places)}"

    def _advice(self, cost: float) -> str:
        """The setting that brings validation below half the training time, or as close as possible."""
        affordable = int(_TRAINING * self.trained / 2 / cost)
        epochs = math.ceil(self.steps / self.steps_per_epoch)
        if affordable < 2 and _GENERATION * self.generated > self.tokens:
            return "Generate less: lower `num_held_out` or `max_new_tokens` of SampleGeneration, or remove it."
        if affordable < 2:
            return (
                f"Validate on fewer than {self.rows:,} rows: a smaller `--data.val`, or `--trainer.limit_val_batches`."
            )
        if affordable > epochs:
            return "Validate once an epoch: `--trainer.val_check_interval 1.0 --trainer.check_val_every_n_epoch 1`."
        every = math.ceil(epochs / (affordable - 1))
        return (
            f"Validate every {every} epochs: `--trainer.val_check_interval 1.0 "
            f"--trainer.check_val_every_n_epoch {every}`."
        )


class PlanReport(Callback):
    """Prints the plan of a run before its first step.

    Args:
        log: Prints a line.
        unused: Limits in a config file that are overridden, as text.
    """

    def __init__(self, log: Callable[[str], None], unused: str = "") -> None:
        self._print_line, self.unused = log, unused
        self._is_printed = False

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the plan before the initial validation."""
        self._print_once(trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the plan, if there was no validation before training."""
        self._print_once(trainer, pl_module)

    def _print_once(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, LitCausalLM)
        if self._is_printed or not trainer.is_global_zero:
            return
        self._is_printed = True
        plan = plan_of(trainer, module)
        self._print_line(f"size    {size_in_words(module)}")
        training, validations = plan.lines()
        done = f"; {trainer.global_step:,} of them are done" if trainer.global_step else ""
        unused = f"; {self.unused} is not used" if self.unused else ""
        self._print_line(f"plan    {training}{done}{unused}")
        kept = _callback_notes(trainer, has_validations=plan.validations != [])
        self._print_line(f"        {'; '.join([validations, *kept])}")
        backbone = module.backbone_settings
        if backbone.adapter and (lora := backbone.adapters):
            self._print_line(f"adapter {backbone.adapter} continues: {described(lora)}")
        if backbone.new_tokens:
            for line in lines_about(backbone.new_tokens, module.data):
                self._print_line(line)
        if warning := plan.warning():
            self._print_line(f"warning {warning}")


def size_in_words(module: nn.Module) -> str:
    """How many parameters a model has, and how many of them are trained; tied ones count once."""
    sizes = parameter_sizes(module)
    total, trained = sum(size for size, _ in sizes), sum(size for size, is_trained in sizes if is_trained)
    share = "all of them" if trained == total else f"{trained:,} of them ({trained / total:.2%})"
    return f"{counted(total, 'parameter')}, {share} trained"


def plan_of(trainer: Trainer, module: LitCausalLM) -> RunPlan:
    """Work out the plan of a run from its settings and the size of its data.

    Args:
        trainer: Set up to fit.
        module: Attached to its data module.
    """
    data = module.data
    batches, accumulate = data.num_train_batches(), trainer.accumulate_grad_batches
    per_epoch = max(1, -(-batches // accumulate))
    limits = {"--trainer.max_epochs": (trainer.max_epochs or -1) * per_epoch, "--trainer.max_steps": trainer.max_steps}
    steps = module.total_steps()
    rows, tokens = data.evaluated("val", trainer.limit_val_batches)
    is_timed = getattr(trainer, "_val_check_time_interval", None) is not None
    validations = [0] if rows and trainer.num_sanity_val_steps == math.inf else []
    if rows and not is_timed:
        validations += validation_steps(
            steps,
            batches,
            accumulate,
            every_n_epochs=trainer.check_val_every_n_epoch,
            interval=trainer.val_check_interval,
            max_epochs=trainer.max_epochs,
        )
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    examples = data.stores["train"]
    return RunPlan(
        steps=steps,
        steps_by={name: of for name, of in limits.items() if of > 0},
        steps_per_epoch=per_epoch,
        batch_size=data.batch_size,
        accumulate=accumulate,
        devices=trainer.world_size,
        validations=None if rows and is_timed else validations,
        rows=rows,
        tokens=tokens,
        generated=sum(callback.generation_steps() for callback in callbacks if isinstance(callback, Generates)),
        trained=examples.mean_length
        * min(len(examples), batches * data.batch_size * trainer.world_size)
        * steps
        / per_epoch,
    )


def validation_steps(
    steps: int,
    batches: int,
    accumulate: int,
    *,
    every_n_epochs: int | None = 1,
    interval: int | float = 1.0,
    max_epochs: int | None = None,
) -> list[int]:
    """The optimiser steps after which a run validates, as Lightning and LitCausalLM together decide.

    Args:
        steps: Optimiser steps of the whole run.
        batches: Micro-batches per epoch on one device.
        accumulate: Micro-batches per step.
        every_n_epochs: `check_val_every_n_epoch`. None: the interval counts across epochs.
        interval: `val_check_interval`: micro-batches, or a fraction of an epoch.
        max_epochs: Epochs of the run. The last one is always validated, at its intervals and at its end.
    """
    per_epoch = -(-batches // accumulate)
    gap = interval if isinstance(interval, int) else max(1, int(batches * interval))
    found: list[int] = []
    for epoch in range(-(-steps // per_epoch)):
        before = epoch * per_epoch
        run = min(batches, (steps - before) * accumulate)
        offset = epoch * batches if every_n_epochs is None else 0
        is_checked = every_n_epochs is None or (epoch + 1) % every_n_epochs == 0 or epoch + 1 == max_epochs
        places = range(gap - offset % gap, run + 1, gap) if is_checked else range(0)
        found += [before + (-(-place // accumulate) if place == batches else place // accumulate) for place in places]
        if before + per_epoch >= steps and run not in places:
            found.append(steps)
    return found


def _callback_notes(trainer: Trainer, *, has_validations: bool) -> list[str]:
    """Which checkpoints are kept, and what may end the run early."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    notes = [
        f"the best checkpoint by {callback.monitor} ({callback.mode}) is kept"
        for callback in callbacks
        if isinstance(callback, ModelCheckpoint) and callback.monitor
    ]
    for callback in callbacks:
        if isinstance(callback, RunKeeper):
            times = [
                *(["after each validation"] if has_validations else []),
                *([f"every {callback.minutes:g} minutes"] if callback.minutes else []),
            ]
            notes.append(f"the newest checkpoint {', '.join(times)}{' and ' * bool(times)}at the end")
        elif isinstance(callback, EarlyStopping):
            notes.append(f"EarlyStopping on {callback.monitor} may end the run sooner")
    return notes
