"""Lightning callbacks that would change a run without changing its settings, and what to use instead."""

from __future__ import annotations

from collections.abc import Iterable

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import BatchSizeFinder, GradientAccumulationScheduler, LearningRateFinder

from data_modules.errors import UserError

_REASONS: dict[type[Callback], str] = {
    GradientAccumulationScheduler: (
        "changes the number of batches per step without the data module knowing, so the loss would be normalised "
        "wrongly; set `--trainer.accumulate_grad_batches` for the whole run."
    ),
    LearningRateFinder: (
        "changes the learning rate after config.yaml is written, so the run could be neither repeated nor resumed; "
        "find one before (`python -m lit_sft find-lr`), or compare several in a study (`python -m lit_sft ablate`, "
        "arms over model.optimizer.lr), then set `--model.optimizer.lr`."
    ),
    BatchSizeFinder: (
        "changes the batch size, and so the training itself; choose `--data.batch_size` for the training and "
        "`--data.token_budget` for your memory: larger batches are split into micro-batches."
    ),
}


def check_callbacks(callbacks: Iterable[Callback]) -> None:
    """Reject callbacks that change a run without changing its settings.

    Raises:
        UserError: If there is one; says why, and what to set instead.
    """
    for callback in callbacks:
        for kind, reason in _REASONS.items():
            if isinstance(callback, kind):
                raise UserError(f"{type(callback).__name__} {reason}")
