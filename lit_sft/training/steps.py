"""The number of optimiser steps of a run."""

from __future__ import annotations

from lightning.pytorch import Trainer

from data_modules.errors import UserError
from lit_sft.training.data import TrainingData


def check_length(max_epochs: int | None, max_steps: int) -> None:
    """Refuse a run without a length, or with an impossible one.

    Args:
        max_epochs: Limit in epochs; -1 or None: no limit.
        max_steps: Limit in optimiser steps; -1: no limit.

    Raises:
        UserError: If neither limits the run, or one is 0 or below -1.
    """
    for name, limit in (("max_epochs", max_epochs), ("max_steps", max_steps)):
        if limit is not None and limit < 1 and limit != -1:
            raise UserError(f"--trainer.{name} {limit}: expected 1 or more, or -1 for no limit.")
    if max_epochs in (None, -1) and max_steps == -1:
        raise UserError(
            "run length not set: give `--trainer.max_epochs` or `--trainer.max_steps`; the schedule depends on it."
        )


def total_steps(trainer: Trainer, data: TrainingData) -> int:
    """Optimiser steps of the whole run. Lightning's own estimate would rebuild the data loader on resuming.

    Args:
        trainer: The trainer whose limits apply.
        data: The run's data.

    Raises:
        UserError: If there is no batch to train on, or no limit.
    """
    per_epoch = -(-data.num_train_batches() // trainer.accumulate_grad_batches)
    if not per_epoch:
        raise UserError(
            f"--trainer.limit_train_batches {trainer.limit_train_batches}: leaves no batch to train on; expected at "
            "least one."
        )
    check_length(trainer.max_epochs, trainer.max_steps)
    limits = [trainer.max_steps] if trainer.max_steps > 0 else []
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        limits.append(trainer.max_epochs * per_epoch)
    return min(limits)
