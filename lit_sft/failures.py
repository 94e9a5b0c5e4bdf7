"""Failures of Lightning and torch that the user can do something about, in one line each."""

from __future__ import annotations

import re

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException


def message_of(error: Exception) -> str | None:
    """What to tell the user; None for a failure that is not known, such as a programming error."""
    said = str(error)
    if isinstance(error, MisconfigurationException) or said.startswith("Early stopping conditioned on metric"):
        return said
    if isinstance(error, torch.OutOfMemoryError):
        return (
            f"out of GPU memory ({said.partition('. ')[0]}). Set `--data.token_budget` to half of what it is, or "
            "`--model.backbone.gradient_checkpointing true`; neither changes a figure."
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
