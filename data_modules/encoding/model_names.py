"""Checks names of models: a local folder, or a name on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from data_modules.errors import UserError
from data_modules.wording import nearest_path

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


def _can_be_on_hub(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return not name.lower().endswith(_FILES)
