"""Protects a run against interruptions: saves regularly, and before stopping on a signal."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from data_modules.errors import UserError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class RunKeeper(Callback):
    """Saves `last.ckpt` after validations, every few minutes and at the end; on Ctrl-C or SIGTERM saves and exits.

    Without validations, it saves after each epoch. Lightning's own `save_last` writes the file only along with a best
    checkpoint. A signal takes effect after the current optimiser step or validation; a second Ctrl-C ends the process
    at once.

    Args:
        folder: Folder of the checkpoints.
        minutes: Minutes between checkpoints. None: only those at validations.
    """

    def __init__(self, folder: Path, minutes: float | None = 10.0) -> None:
        if minutes is not None and minutes <= 0:
            raise UserError(f"--run.checkpoint_minutes {minutes}: expected more than 0, or null.")
        self.folder, self.minutes = folder, minutes
        self.received: signal.Signals | None = None
        self._handlers: dict[signal.Signals, Any] = {}
        self._last_save = time.monotonic()
        self._is_behind = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install the signal handlers."""
        # not earlier: there is nothing to lose yet, and Lightning would mistake these handlers for the original ones
        self._handlers = {number: signal.signal(number, self._receive) for number in _SIGNALS}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that a checkpoint is due."""
        self._is_behind = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that a checkpoint is due, if the run has no validations."""
        self._is_behind |= not any(trainer.num_val_batches)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last checkpoint."""
        self._save(trainer)
        self._restore_handlers()
        if self.received is not None:
            print("\nthat was the last step; the run is complete", file=sys.stderr)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the signal handlers."""
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Save or exit between two steps, after any validation that was due."""
        if batch_idx % trainer.accumulate_grad_batches:
            return
        # all processes must agree, which takes time; the second check runs only if something is due
        is_due = self._is_behind or (trainer.is_global_zero and self._is_due())
        if trainer.strategy.reduce_boolean_decision(is_due or self.received is not None, all=False):
            self._save(trainer)
            if trainer.strategy.reduce_boolean_decision(self.received is not None, all=False):
                self._leave(trainer)

    @property
    def checkpoint(self) -> Path:
        """The checkpoint that is kept up to date."""
        return self.folder / "last.ckpt"

    def _is_due(self) -> bool:
        return self.minutes is not None and time.monotonic() - self._last_save >= 60 * self.minutes

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.checkpoint)
        self._last_save, self._is_behind = time.monotonic(), False

    def _leave(self, trainer: Trainer) -> None:
        if trainer.is_global_zero:
            print(
                f"\nstopped after step {trainer.global_step}; saved in {self.checkpoint}\n"
                f"to continue: python -m lit_sft fit --resume {self.folder.parent}",
                file=sys.stderr,
            )
        # the shell's convention for a process ended by a signal
        raise SystemExit(128 + (self.received or signal.SIGTERM))

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGTERM:
            return  # a process often gets it twice: once with its group, once from its parent
        if self.received is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.received = signal.Signals(number)
        # not print: the signal may have interrupted one
        os.write(2, f"\n{self.received.name}: saving after this step; repeat to exit immediately\n".encode())
