"""Settings of run folders, and of the code that a run's config may name."""

from __future__ import annotations

from dataclasses import dataclass

from lit_sft.settings.logger_names import DEFAULT, LoggerName


@dataclass(frozen=True)
class RunSettings:
    """Settings of a run's folder.

    Attributes:
        root: Folder of all runs.
        name: Folder of this group of runs. None: the name of the first config file.
        checkpoint_minutes: Minutes between checkpoints, in addition to those at validations. None: no others.
        allow_changes: Whether a run may be resumed with different settings or data.
        allow_code: On the command line only: modules or classes, separated by commas, that a run's config may name
            besides those of this project, Lightning, torch and transformers. Opening the run then runs their code.
        loggers: Where curves and settings are logged: tensorboard, csv (`metrics.csv` in the run folder), wandb and
            mlflow, any of them together. Empty: nowhere.
    """

    root: str = "runs"
    name: str | None = None
    checkpoint_minutes: float | None = 10.0
    allow_changes: bool = False
    allow_code: str | None = None
    loggers: tuple[LoggerName, ...] = DEFAULT
