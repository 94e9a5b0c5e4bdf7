"""The number of optimiser steps of a run."""

from __future__ import annotations

from lightning.pytorch import Trainer

from data_modules.errors import UserError
from lit_sft.training.data import TrainingData


def total_steps(trainer: Trainer, data: TrainingData) -> int:
    """Optimiser steps of the whole run. Lightning's own estimate would rebuild the data loader on resuming.

    Args:
        trainer: Its limits count.
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
    limits = [trainer.max_steps] if trainer.max_steps > 0 else []
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        limits.append(trainer.max_epochs * per_epoch)
    if not limits:
        raise UserError(
            "run length not set: give `--trainer.max_epochs` or `--trainer.max_steps`; the schedule depends on it."
        )
    return min(limits)
