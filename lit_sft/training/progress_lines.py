"""Training progress as lines, for log files and terminals without a progress bar."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from data_modules.batching.batch import Batch
from data_modules.progress import Pace, duration
from lit_sft.models.loss import sums_of_step
from lit_sft.training.module import LitCausalLM


class ProgressLines(ProgressBar):
    """Prints step, loss, tokens per second and time left: after the first step, then every ten seconds or less often.

    The loss is the mean since the previous line; the device is read only when a line is due. Every validation prints a
    line with its loss, and its progress if it takes long.

    Args:
        log: Prints a line.
        clock: Seconds.
    """

    def __init__(self, log: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._log, self._clock = log, clock
        self._is_enabled = True
        self._pace = self._evaluation = Pace(clock)
        self._steps_before = self._steps = self._total = 0
        self._sums: Tensor | None = None
        self._tokens = 0
        self._began = self._paused = 0.0

    def disable(self) -> None:
        """Stop printing."""
        self._is_enabled = False

    def enable(self) -> None:
        """Print again."""
        self._is_enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._pace, self._total = Pace(self._clock), cast(LitCausalLM, pl_module).total_steps()
        self._steps_before = self._steps = trainer.global_step
        self._start_interval()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: list[Batch], batch_idx: int
    ) -> None:
        """Add up the loss and tokens; print a line if one is due."""
        sums = sums_of_step(outputs, "total")
        if sums is not None:
            self._sums = sums if self._sums is None else self._sums + sums
        self._tokens += sum(length for micro_batch in batch for length in micro_batch.lengths)
        if trainer.global_step == self._steps:
            return  # inside an accumulation window
        self._steps = trainer.global_step
        is_first_or_last = self._steps in (self._steps_before + 1, self._total)
        if self._pace.is_due() or is_first_or_last:
            self._print(self._line(trainer))
            self._start_interval()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of the validation."""
        self._evaluation = Pace(self._clock)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Print the progress of a long validation."""
        is_check = trainer.sanity_checking
        self._count("validation", trainer.num_sanity_val_batches if is_check else trainer.num_val_batches, batch_idx)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the loss of the validation."""
        self._paused += self._evaluation.seconds
        if trainer.sanity_checking and (trainer.global_step or trainer.num_sanity_val_steps != math.inf):
            return  # only part of the data, or a resumed run, which printed this line before
        loss = cast(LitCausalLM, pl_module).metrics["val"]["loss"]
        steps = f" after step {trainer.global_step:,}" if trainer.global_step else " before training"
        place = steps if trainer.state.fn == TrainerFn.FITTING else ""  # `validate` does not count steps
        self._print(f"validation{place}: loss {loss:.4f}")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of the test."""
        self._evaluation = Pace(self._clock)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Print the progress of a long test."""
        self._count("test", trainer.num_test_batches, batch_idx)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of the predictions."""
        self._evaluation = Pace(self._clock)

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Print the progress of long predictions."""
        self._count("predict", trainer.num_predict_batches, batch_idx)

    def _count(self, what: str, batches: list[int | float], batch_idx: int) -> None:
        if self._evaluation.is_due():
            self._print(f"{what}: {batch_idx + 1:,} of {sum(batches):,} batches")

    def _line(self, trainer: Trainer) -> str:
        total, weight = (0.0, 0.0) if self._sums is None else self._sums.tolist()
        seconds = max(self._clock() - self._began - self._paused, 1e-9)
        done, left = self._steps - self._steps_before, self._total - self._steps
        parts = [
            f"step {self._steps:,} of {self._total:,}",
            *([f"loss {total / weight:.4f}"] if weight else []),
            f"{self._tokens * trainer.world_size / seconds:,.0f} tokens/s",
            *([f"{duration(self._pace.seconds / done * left)} left"] if done > 1 and left > 0 else []),
        ]
        return ", ".join(parts)

    def _start_interval(self) -> None:
        self._began, self._paused, self._sums, self._tokens = self._clock(), 0.0, None, 0

    def _print(self, line: str) -> None:
        if self._is_enabled:
            self._log(line)


def lines_without_terminal(
    callbacks: list[Callback], enable_progress_bar: bool | None, log: Callable[[str], None]
) -> list[Callback]:
    """Add progress lines if stdout is not a terminal, unless the user turned the progress bar on or off explicitly.

    Args:
        callbacks: The trainer's callbacks.
        enable_progress_bar: The trainer's setting.
        log: Prints a line.
    """
    is_chosen = enable_progress_bar is False or any(isinstance(callback, ProgressBar) for callback in callbacks)
    return callbacks if is_chosen or sys.stdout.isatty() else [*callbacks, ProgressLines(log)]
