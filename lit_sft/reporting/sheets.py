"""CSV files without cells that a spreadsheet would run as formulas."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from lit_sft.files import write_text
from lit_sft.printable import printable

_FORMULAS = tuple("=+-@＝＋－＠")
_CONTROLS = ("\t", "\r", "\n")


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write rows, the header first. Text that a spreadsheet would run as a formula gets an apostrophe in front.

    Args:
        path: The file.
        rows: Cells: numbers, and text from any source.
    """
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows(map(_cell, row) for row in rows)
    write_text(path, stream.getvalue())


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    is_formula = value.startswith(_CONTROLS) or value.lstrip().startswith(_FORMULAS)
    return f"'{printable(value)}" if is_formula and not _is_number(value) else printable(value)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
