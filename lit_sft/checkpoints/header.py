"""Reads what a checkpoint says about itself, without its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def read_header(checkpoint: Path) -> dict[str, Any] | None:
    """Everything in a checkpoint; its tensors have shapes but no values.

    Args:
        checkpoint: A file written by Lightning. Nothing in it is executed.

    Returns:
        The content; None if the file is missing, damaged or something else.
    """
    import torch

    try:
        header = torch.load(checkpoint, map_location="meta", mmap=True, weights_only=True)
    except Exception:  # a damaged file can raise any of a dozen exception types
        return None
    return header if isinstance(header, dict) else None
