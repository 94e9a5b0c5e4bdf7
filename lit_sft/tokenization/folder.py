"""Writes a trained tokenizer as a Hugging Face folder, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from data_modules.digests import DIGESTS, write_digests
from data_modules.errors import UserError
from lit_sft.files import replaced_folder, write_json, write_text
from lit_sft.tokenization.recipe import Recipe

REPORT = "training.json"
_TEMPLATE = "chat_template.jinja"
_WRITTEN = ("tokenizer.json", "tokenizer_config.json", _TEMPLATE, REPORT, DIGESTS)


def check_target(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that is in use, before any work.

    Args:
        folder: The folder to write.
        overwrite: Whether an earlier tokenizer in it may be replaced.

    Raises:
        UserError: If it has files, other than those of an earlier tokenizer that may be replaced, or cannot be made.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {folder}: cannot be made ({error.strerror}); choose another folder.") from None
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"--output {folder}: this is a file; expected a new folder.")
    others = sorted(path.name for path in folder.iterdir() if path.name not in _WRITTEN)
    if others:
        raise UserError(f"--output {folder}: the folder has other files ({', '.join(others[:3])}); name a new one.")
    if any(folder.iterdir()) and not overwrite:
        raise UserError(f"--output {folder}: there is already a tokenizer; name a new folder, or set --overwrite.")


def write_folder(folder: Path, tokenizer: Tokenizer, recipe: Recipe, report: dict[str, Any]) -> None:
    """Write the tokenizer, its settings for transformers, its chat template and the report.

    Args:
        folder: The folder; an earlier tokenizer in it is replaced.
        tokenizer: The tokenizer.
        recipe: Its settings.
        report: How it was made.
    """
    with replaced_folder(folder, is_written=_WRITTEN.__contains__) as aside:
        tokenizer.save(str(aside / "tokenizer.json"))
        write_json(aside / "tokenizer_config.json", _config(recipe))
        if recipe.chat_template is not None:
            write_text(aside / _TEMPLATE, recipe.chat_template)
        write_json(aside / REPORT, report)
        write_digests(aside)


def _config(recipe: Recipe) -> dict[str, Any]:
    """The settings for transformers. Not written by its `save_pretrained`, whose fields change between versions."""
    roles = {"eos_token": recipe.eos_token, "pad_token": recipe.pad_token, "bos_token": recipe.bos_token}
    others = [token for token in recipe.special_tokens if token not in roles.values()]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{role: token for role, token in roles.items() if token is not None},
        "additional_special_tokens": others,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
    }
