"""Atomic checkpoint files: written to a temporary file, flushed to disk, then renamed; verified when read."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from lit_sft.checkpoints.digests import add_digest, check_intact

_WRITERS_WORDS = re.compile("PytorchStreamWriter|unexpected pos|iostream error")
"""Messages of the RuntimeErrors that torch's writer raises when the disk is full."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints with a digest and verifies them; a kill or a full disk leaves the previous one intact."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Raises:
            OSError: If it cannot be written; no partial file is left behind.
        """
        target = Path(path)
        # another suffix, so that no search for checkpoints finds it
        partial = target.with_name(f"{target.name}.partial")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                add_digest(partial)
                os.fsync(file.fileno())
            partial.replace(target)
            _flush_folder(target.parent)
        except BaseException as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            if not _is_from_disk(error):
                raise
            reason = getattr(error, "strerror", None) or "writing stopped half-way; the disk may be full"
            kept, then = "there was none before", "run `fit` again"
            if target.exists():
                kept, then = f"{target.name} is unchanged", "continue with `python -m lit_sft fit --resume`"
            raise OSError(
                f"{target}: cannot write this checkpoint ({reason}); {kept}. Free up space or choose another "
                f"`--run.root`, then {then}."
            ) from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any = lambda storage, _: storage, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint.

        Raises:
            UserError: If it has changed since it was written.
        """
        if Path(path).is_file():
            check_intact(Path(path))
        return super().load_checkpoint(path, map_location, weights_only)


def _is_from_disk(error: BaseException) -> bool:
    is_from_writer = isinstance(error, RuntimeError) and _WRITERS_WORDS.search(str(error))
    return isinstance(error, OSError) or bool(is_from_writer)


def _flush_folder(folder: Path) -> None:
    """Flush a folder, so that a rename in it survives a power cut; not every system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
