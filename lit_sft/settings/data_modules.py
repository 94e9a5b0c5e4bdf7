"""Which data module a run has, and so which options `data` has: those of fine-tuning, or those of plain text."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

import yaml

from data_modules.errors import UserError
from data_modules.sft_data_module import SFTDataModule
from data_modules.text_data_module import TextDataModule
from data_modules.wording import did_you_mean
from lit_sft.yaml_loader import load_yaml

DataModuleName = Literal["sft", "text"]

DATA_MODULES: dict[DataModuleName, type[SFTDataModule] | type[TextDataModule]] = {
    "sft": SFTDataModule,
    "text": TextDataModule,
}

_INSTEAD = {
    **dict.fromkeys(
        ("mask", "prompt_weight", "answer_weight", "reduction", "convention"), "; text runs train on every token"
    ),
    "max_length": ", or set `--data.block_size` instead",
    "over_long": ", or set `--data.blocks` and `--data.keep_rest` instead",
    "packing": "; blocks are always packed",
    "format": "; records need a field `text`, or `--data.columns '{text: FIELD}'`",
}
"""What to add to “Remove it” about a setting of fine-tuning in a text run."""


def data_module_of(arguments: Sequence[str]) -> DataModuleName:
    """The data module that options and config files name; the last one wins, as for every other setting.

    Read before the parser is built, because its options depend on it.

    Args:
        arguments: Options as the user types them, in long form. Files that cannot be read are left to the parser.

    Raises:
        UserError: If there is no such data module.
    """
    found: DataModuleName = "sft"
    for option, value in _values(arguments):
        name = value if option == "--data_module" else _in_config(value)
        if name is None:
            continue
        if name not in DATA_MODULES:
            known = get_args(DataModuleName)
            hint = did_you_mean(str(name), known)
            where = f"{value}: " if option == "--config" else ""
            raise UserError(
                f"{where}--data_module {name}: expected one of {', '.join(known)}{f'; {hint}' if hint else '.'}"
            )
        found = name
    return found


def refused_options(name: DataModuleName) -> dict[str, str]:
    """Why options of the other data module are refused, and what to do, by option.

    Args:
        name: The data module in use.
    """
    own, other = (set(inspect.signature(DATA_MODULES[each]).parameters) for each in (name, _OTHER[name]))
    if name == "sft":
        advice = "a setting of text runs; add `data_module: text` (`--data_module text`), or remove it."
        return {f"data.{option}": advice for option in other - own}
    why = "a setting of fine-tuning, and this is a text run (data_module: text)"
    return {f"data.{option}": f"{why}. Remove it{_INSTEAD.get(option, '')}." for option in other - own}


_OTHER: dict[DataModuleName, DataModuleName] = {"sft": "text", "text": "sft"}


def _values(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The values of `--config` and `--data_module`, in order."""
    following = [*arguments[1:], ""]
    for argument, after in zip(arguments, following, strict=True):
        option, is_joined, value = argument.partition("=")
        if option in ("--config", "--data_module"):
            yield option, value if is_joined else after


def _in_config(path: str) -> object:
    """The data module that a config names; None if it names none, or cannot be read."""
    try:
        values, _ = load_yaml(Path(path).read_text(encoding="utf-8"), path)
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return values.get("data_module") if isinstance(values, dict) else None
