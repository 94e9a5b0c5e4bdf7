"""Files of results: JSON that is whole or not there, and digests that say whether two things are the same."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any


def read_json(path: Path) -> dict[str, Any] | None:
    """What a file holds; None if it is not there."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path}: no JSON ({error}); remove it, and what it stands for is done again.") from None
    return found


def write_json(path: Path, value: Any) -> None:
    """Write a file, whole or not at all, and only if it holds something else."""
    text = json.dumps(value, indent=1, ensure_ascii=False, default=str)
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")  # array tasks write side by side
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def digest(value: Any) -> str:
    """Of any JSON-like value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
