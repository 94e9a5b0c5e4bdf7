"""A run that is refused or interrupted before its first step leaves nothing behind."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from types import TracebackType

from lightning.pytorch import Trainer

from lit_sft.runs.folders import Run

_LOGS = ("events.out.tfevents*", "hparams.yaml", "metrics.csv")
"""Files that loggers write when a run starts."""


class NewFolders:
    """A folder that is about to be made, and those above it that are not there either."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._missing = [path for path in (folder, *folder.parents) if not path.exists()]

    def remove_empty(self) -> None:
        """Remove those that were made and hold nothing."""
        with contextlib.suppress(OSError):
            for path in self._missing:
                path.rmdir()

    def remove_logs(self) -> None:
        """Remove what a logger wrote, and the folders if nothing else is in them."""
        if self.folder in self._missing:
            for pattern in _LOGS:
                for file in self.folder.glob(pattern):
                    file.unlink(missing_ok=True)
            self.remove_empty()


class RefusedStart(contextlib.AbstractContextManager["RefusedStart"]):
    """Removes the folder of a new run when the command ends, unless there is something in it to keep.

    Args:
        run: The run, in a folder made for it.
        above: The folder above it, as it was before.
        trains: Whether the command trains: then, before the first batch, nothing is worth keeping.
    """

    def __init__(self, run: Run, above: NewFolders, *, trains: bool) -> None:
        self.run, self.above, self.trains = run, above, trains
        self._trainer: Trainer | None = None
        self._logs: list[NewFolders] = []

    def watch(self, trainer: Trainer) -> None:
        """Take note of the trainer, and of folders that its loggers have not made yet."""
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
