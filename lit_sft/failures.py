"""One-line messages for failures: known ones with advice, others with a pointer to their traceback."""

from __future__ import annotations

import os
import re
import traceback
from pathlib import Path

from data_modules.errors import UserError
from lit_sft.credentials import without_credentials
from lit_sft.files import error_line

BUG_NOTE = (
    "This is probably a bug in lit_sft. Please report it with the lines above and the command. "
    "Checkpoints written before it are intact."
)
"""Follows the traceback of a programming error."""


def message_of(error: Exception) -> str | None:
    """A message for the user; None for unknown failures, such as bugs.

    What Lightning itself refuses is about the trainer's settings.
    """
    import torch
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    text = str(error).strip()
    if isinstance(error, UserError):
        return text
    if isinstance(error, (ArithmeticError, ImportError, TypeError, ValueError)):
        return f"--trainer: {text}" if _is_raised_in(error, "lightning") else None
    if isinstance(error, MisconfigurationException) or text.startswith("Early stopping conditioned on metric"):
        return text
    if isinstance(error, torch.OutOfMemoryError):
        return (
            f"out of GPU memory ({text.partition('. ')[0]}). Halve `--data.token_budget`, or set "
            "`--model.backbone.gradient_checkpointing true`; neither changes the results."
        )
    if re.search("DataLoader worker.*(exited unexpectedly|is killed by signal)", text):
        return (
            f"{text.splitlines()[0]}. A process that prepares batches died, most often because it ran out of memory. "
            "Continue from the last checkpoint with `python -m lit_sft fit --resume` and fewer `--data.num_workers`."
        )
    if text.startswith("Found more than one stateful callback"):
        return (
            f"`trainer.callbacks`: {text.partition('. ')[0]} with the same settings. Every run already has a "
            "ModelCheckpoint, set by `--checkpoint`; use that one, or give yours another `monitor`, `mode` or interval."
        )
    return None


def _is_raised_in(error: Exception, package: str) -> bool:
    """Whether an error was raised by a package itself, not by code that it called."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return bool(frames) and str(frames[-1][0].f_globals.get("__name__")).partition(".")[0] == package


def reason_in(output: str) -> str:
    """Why a command failed: the message in its output, or the last line of its traceback."""
    lines = [line for line in output.splitlines() if line.strip()]
    if messages := [line for line in lines if line.startswith("lit_sft ")]:
        return messages[-1]
    while lines and lines[-1].startswith(BUG_NOTE):
        lines.pop()
    return lines[-1] if lines else "no output"


def reason_of_part(error: Exception, folder: Path) -> str:
    """One line on why part of a job failed; the rest of the job continues.

    Anything but a user's mistake or an OSError may be a bug: its traceback is appended to `errors.log`, which the line
    names. With LIT_SFT_DEBUG=1 it is raised and ends the job.

    Args:
        error: The error, just caught.
        folder: Folder of `errors.log`.
    """
    if isinstance(error, (UserError, OSError)):
        return error_line(error)
    if os.environ.get("LIT_SFT_DEBUG"):
        raise error
    file = folder / "errors.log"
    folder.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8", errors="backslashreplace") as stream:
        stream.write(without_credentials("".join(traceback.format_exception(error))) + "\n")
    return f"{error_line(error)} (the traceback is in {file})"
