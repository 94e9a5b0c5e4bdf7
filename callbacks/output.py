"""Shared by the callbacks: rows in the run folder, and printing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from lightning.pytorch import Callback, Trainer
from rich import get_console
from rich.console import RenderableType

from data_modules.errors import UserError
from lit_sft.files import append_line


def is_fitting(trainer: Trainer) -> bool:
    """Whether this is `fit`. `validate` runs the same hooks but has no history to write."""
    return trainer.state.fn == "fit"


def is_whole_validation(trainer: Trainer) -> bool:
    """Whether the validation that just ended covered the whole split for the first time at this step.

    Lightning's sanity check may cover only a few batches, and after resuming it repeats an earlier validation.
    """
    if not trainer.sanity_checking:
        return True
    return trainer.global_step == 0 and trainer.num_sanity_val_batches == trainer.num_val_batches


def file_in_run(callback: Callback, file: str) -> str:
    """Check that a callback's file is inside the run folder; returns its name.

    Raises:
        UserError: If it is not.
    """
    path = PurePath(file)
    if path.is_absolute() or ".." in path.parts or not path.name or not file.isprintable():
        raise UserError(f"{type(callback).__name__} file {file!r}: expected a name inside the run folder.")
    return file


def append_row(trainer: Trainer, file: str, row: dict[str, Any]) -> None:
    """Append a row to a JSON lines file in the run folder, from one process only.

    Infinite values and NaN become null, which every JSON reader understands.
    """
    if not trainer.is_global_zero:
        return
    path = Path(trainer.default_root_dir) / file
    path.parent.mkdir(parents=True, exist_ok=True)
    append_line(path, row)


def writers(trainer: Trainer, method: str) -> Iterator[Any]:
    """The methods of this name on the loggers' writers, on one process only. Most loggers have none."""
    for logger in trainer.loggers if trainer.is_global_zero else []:
        found = getattr(getattr(logger, "experiment", None), method, None)
        if found is not None:
            yield found


def print_for(trainer: Trainer, *renderables: RenderableType) -> None:
    """Print from one process only, above the progress bar on the same console, without interpreting markup."""
    if trainer.is_global_zero:
        for renderable in renderables:
            get_console().print(renderable, markup=False, highlight=False)
