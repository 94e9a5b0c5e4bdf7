"""Cleans up after a run that fails or is interrupted before its first step."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from types import TracebackType

from lightning.pytorch import Trainer

from lit_sft.runs.folders import Run

_LOGS = ("events.out.tfevents*", "hparams.yaml", "metrics.csv")
"""Files that loggers write at the start of a run."""


class NewFolders:
    """A folder about to be created, and its missing parents."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._missing = [path for path in (folder, *folder.parents) if not path.exists()]

    def remove_empty(self) -> None:
        """Remove the new folders that are empty."""
        with contextlib.suppress(OSError):
            for path in self._missing:
                path.rmdir()

    def remove_logs(self) -> None:
        """Remove the files of a logger, and the folders if they are then empty."""
        if self.folder in self._missing:
            for pattern in _LOGS:
                for file in self.folder.glob(pattern):
                    file.unlink(missing_ok=True)
            self.remove_empty()


class RefusedStart(contextlib.AbstractContextManager["RefusedStart"]):
    """Removes the folder of a new run when the command ends, unless it contains something worth keeping.

    Args:
        run: The new run.
        above: Its parent folder, as it was before.
        trains: Whether the command trains; if so, nothing is worth keeping before the first batch.
    """

    def __init__(self, run: Run, above: NewFolders, *, trains: bool) -> None:
        self.run, self.above, self.trains = run, above, trains
        self._trainer: Trainer | None = None
        self._logs: list[NewFolders] = []

    def watch(self, trainer: Trainer) -> None:
        """Note the trainer, and the folders that its loggers have not created yet."""
        self._trainer = trainer
        folders = {logger.log_dir for logger in trainer.loggers} - {None, str(self.run.folder)}
        self._logs = [NewFolders(Path(str(folder))) for folder in folders]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and self.trains and not self._has_begun():
            shutil.rmtree(self.run.folder, ignore_errors=True)
            for logs in self._logs:
                logs.remove_logs()
        with contextlib.suppress(OSError):
            self.run.folder.rmdir()
        self.above.remove_empty()

    def _has_begun(self) -> bool:
        if self._trainer is None:
            return False
        return self._trainer.fit_loop.epoch_loop.batch_progress.total.ready > 0
