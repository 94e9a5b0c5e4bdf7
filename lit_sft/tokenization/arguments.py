"""Arguments of both commands: how texts are read, and sizes in bytes."""

from __future__ import annotations

import re
from typing import get_args

from data_modules.errors import UserError
from data_modules.records.counts import OnInvalid
from data_modules.records.formats import FormatName
from data_modules.records.text_lines import TxtDocuments
from data_modules.wording import kind_of
from lit_sft.settings.arguments import Arguments
from lit_sft.yaml_loader import load_yaml

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZE = re.compile(r"([\d_]+(?:\.\d+)?)\s*([kmgt]?b?)", re.IGNORECASE)


def add_reading_options(parser: Arguments) -> None:
    """Add the options that say how texts are read."""
    parser.add_argument(
        "--columns",
        metavar="COLUMN",
        help="the column with the text, or '{FIELD: COLUMN, ...}' as in --data.columns",
    )
    parser.add_argument("--format", choices=get_args(FormatName), help="format of the records; default: detected")
    parser.add_argument(
        "--on_invalid", choices=get_args(OnInvalid), default="error", help="stop at an invalid record, or drop it"
    )
    parser.add_argument(
        "--txt_documents",
        choices=get_args(TxtDocuments),
        default="line",
        help="what a document is in a .txt file: every line (default), the lines between two blank ones, or the file; "
        "line breaks are part of the last two",
    )


def columns_of(given: str | None) -> dict[str, str]:
    """The column of each field: of `text` if only a name is given.

    Raises:
        UserError: If the value looks like a mapping but is not one.
    """
    if given is None:
        return {}
    if not given.lstrip().startswith("{"):
        return {"text": given}
    found = load_yaml(given, "--columns")[0]
    if not isinstance(found, dict):
        raise UserError(f"--columns {given}: found {kind_of(found)}; expected '{{FIELD: COLUMN}}' or a column's name.")
    return found


def num_bytes_of(given: str | None, option: str) -> int | None:
    """A size such as 500MB in bytes.

    Raises:
        UserError: If it is not a size above 0.
    """
    if given is None:
        return None
    found = _SIZE.fullmatch(given.strip())
    unit = found[2].upper() if found else ""
    num = float(found[1]) * _UNITS[unit if unit.endswith("B") or not unit else f"{unit}B"] if found else 0
    if num < 1:
        raise UserError(f"{option} {given}: expected a size such as 200MB or 1.5GB.")
    return int(num)


def size(num_bytes: int) -> str:
    """A number of bytes in readable form."""
    for unit in ("TB", "GB", "MB", "KB"):
        if num_bytes >= _UNITS[unit]:
            return f"{num_bytes / _UNITS[unit]:.3g} {unit}"
    return f"{num_bytes} bytes"
