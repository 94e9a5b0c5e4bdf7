"""Callbacks of Lightning's that would change a run behind its settings, and what to do instead."""

from __future__ import annotations

from collections.abc import Iterable

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import BatchSizeFinder, GradientAccumulationScheduler, LearningRateFinder

from data_modules.errors import UserError

_REASONS: dict[type[Callback], str] = {
    GradientAccumulationScheduler: (
        "changes the batches of a step behind the data's back, and the loss would be divided wrongly; set "
        "`--trainer.accumulate_grad_batches` for the whole run."
    ),
    LearningRateFinder: (
        "changes the learning rate after config.yaml is written, so that the run could be neither repeated nor "
        "resumed; compare rates by a study (`python -m lit_sft ablate`, arms over model.optimizer.lr), and set "
        "`--model.optimizer.lr`."
    ),
    BatchSizeFinder: (
        "changes the batch size, and with it the training; set `--data.batch_size` as the training needs it, and "
        "`--data.token_budget` as the memory allows: a larger batch goes through the model in pieces."
    ),
}


def check_callbacks(callbacks: Iterable[Callback]) -> None:
    """Refuse callbacks that change what a step is.

    Raises:
        UserError: If one does; says why, and what to set instead.
    """
    for callback in callbacks:
        for kind, reason in _REASONS.items():
            if isinstance(callback, kind):
                raise UserError(f"{type(callback).__name__} {reason}")
