"""Failures in a line each: known ones with what to do about them, others with the place of their traceback."""

from __future__ import annotations

import os
import re
import traceback
from pathlib import Path

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from data_modules.errors import UserError
from lit_sft.credentials import without_credentials
from lit_sft.files import said


def message_of(error: Exception) -> str | None:
    """What to tell the user; None for a failure that is not known, such as a programming error.

    A `ValueError` that Lightning raises is about the trainer's settings.
    """
    said = str(error)
    if isinstance(error, ValueError):
        return said if isinstance(error, UserError) or _is_raised_in(error, "lightning") else None
    if isinstance(error, MisconfigurationException) or said.startswith("Early stopping conditioned on metric"):
        return said
    if isinstance(error, torch.OutOfMemoryError):
        return (
            f"out of GPU memory ({said.partition('. ')[0]}). Set `--data.token_budget` to half of what it is, or "
            "`--model.backbone.gradient_checkpointing true`; neither changes a result."
        )
    if re.search("DataLoader worker.*(exited unexpectedly|is killed by signal)", said):
        return (
            f"{said.splitlines()[0]}. A process that collates batches died, most often because it ran out of memory. "
            "Continue from the last checkpoint with `python -m lit_sft fit --resume` and fewer `--data.num_workers`."
        )
    if said.startswith("Found more than one stateful callback"):
        return (
            f"`trainer.callbacks`: {said.partition('. ')[0]} with the same settings. A run has a ModelCheckpoint "
            "already, set by `--checkpoint`; use that one, or give yours another `monitor`, `mode` or interval."
        )
    return None


def _is_raised_in(error: Exception, package: str) -> bool:
    """Whether an error was raised by a module of a package, rather than by something that it called."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return bool(frames) and str(frames[-1][0].f_globals.get("__name__")).partition(".")[0] == package


def reason_of_part(error: Exception, folder: Path) -> str:
    """In a line, why one part of a job failed while the others go on.

    What is neither a user's mistake nor an OSError may be a fault of the code: its traceback goes to `errors.log`,
    which the line names. With LIT_SFT_DEBUG=1 such an error ends the job.

    Args:
        error: Just caught.
        folder: Where `errors.log` is written.
    """
    if isinstance(error, (UserError, OSError)):
        return said(error)
    if os.environ.get("LIT_SFT_DEBUG"):
        raise error
    file = folder / "errors.log"
    folder.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8", errors="backslashreplace") as stream:
        stream.write(without_credentials("".join(traceback.format_exception(error))) + "\n")
    return f"{said(error)} (the traceback is in {file})"
