"""Checks names of models: a local folder, or a name on the Hugging Face hub."""

from __future__ import annotations

import difflib
from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from data_modules.errors import UserError

_FILES = (
    ".ckpt", ".safetensors", ".pt", ".pth", ".bin", ".gguf", ".json", ".jsonl", ".yaml", ".yml", ".txt", ".zip", ".gz",
)  # fmt: skip
"""Endings of file names, which no model name has."""


def check_model_name(name: str) -> None:
    """Refuse a name that is neither a folder nor possible on the hub, without asking the hub.

    Raises:
        UserError: If it is neither.
    """
    path = Path(name)
    if path.is_dir():
        return
    if path.exists():
        raise UserError(f"{name}: this is a file; expected a model folder, or a model name on the hub.")
    if _can_be_on_hub(name) and not (path.parent.name and path.parent.is_dir()):
        return
    started_in = "" if path.is_absolute() else f" (in {Path.cwd()})"
    raise UserError(
        f"{name}: no such folder{started_in}, and not a model name on the hub, such as gpt2 or Qwen/Qwen3-0.6B; "
        f"{nearest_path(path) or 'check the path.'}"
    )


def nearest_path(path: Path, *folders: Path) -> str:
    """`did you mean ...?` for a path that does not exist; empty if no name there is similar.

    Args:
        path: The path the user gave.
        folders: Other folders to look in.
    """
    for folder in (path.parent, *folders):
        try:
            names = sorted(each.name for each in folder.iterdir())
        except (OSError, ValueError):  # no such folder, or an impossible name
            continue
        endings = sorted({Path(name).suffix for name in names})  # the user may have left one out
        for wanted in (path.name, *(path.name + ending for ending in endings)):
            if close := difflib.get_close_matches(wanted, names, n=1, cutoff=0.75):
                return f"did you mean {folder / close[0]}?"
    return ""


def _can_be_on_hub(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return not name.lower().endswith(_FILES)
