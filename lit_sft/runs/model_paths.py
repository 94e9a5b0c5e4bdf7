"""Refuses relative paths of models that exist elsewhere: here they could be taken for names on the hub."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lit_sft.files import read_json
from lit_sft.runs.folders import StartedElsewhereError
from lit_sft.settings.reading import Settings

_LEVELS = 5
"""How many folders above a config are searched."""


def check_model_paths(settings: Settings) -> None:
    """Refuse the path of a model or tokenizer that does not exist here, but does where its config comes from.

    Args:
        settings: Read from config files, in a run folder or elsewhere.

    Raises:
        StartedElsewhereError: If there is one; names the folder to start in.
    """
    backbone = settings.config.model.backbone
    starts = [folder for file in settings.config.config or [] for folder in _starts(Path(str(file)))]
    for option in ("pretrained", "tokenizer", "adapter"):
        name = backbone.get(option)
        if not name or Path(name).is_absolute() or Path(name).exists():
            continue
        for folder in starts:
            if (folder / name).is_dir():
                raise StartedElsewhereError(
                    f"--model.backbone.{option} {name}: no such folder in {Path.cwd()}, but {folder / name} exists; "
                    f"relative paths start from the working folder. Run the command in {folder}."
                )


def _starts(config: Path) -> Iterable[Path]:
    """Folders in which a config was probably used: where its run was started, and the folders above the config."""
    start = (read_json(config.parent / "run.json") or {}).get("cwd")
    if isinstance(start, str):
        yield Path(start)
    yield from config.resolve().parents[:_LEVELS]
