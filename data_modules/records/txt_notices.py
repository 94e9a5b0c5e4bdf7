"""Notices about .txt files whose content suggests that they should be read differently."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from data_modules.records.data_files import data_files
from data_modules.records.text_lines import read_lines
from data_modules.wording import listed

_LOOKED_AT = 1000
"""Maximum number of .txt files of a source whose first lines are read, because this is done at every start."""

_NAMED = 5
"""How many files a notice names."""

_LINES = 200
_LAST = ".!?。！？…:：;；\"'”’）)」』"


def txt_notices(source: str, *, asks_for_unit: bool) -> list[str]:
    """One line for each kind of doubt about the .txt files of a source.

    Args:
        source: A file or a folder; hub datasets have no .txt files.
        asks_for_unit: Whether every line is a document and `--data.txt_documents` could change that.
    """
    path = Path(source)
    if not path.exists():
        return []
    files = islice((file for file in data_files(source) if file.suffix.lower() == ".txt"), _LOOKED_AT)
    found = _doubts(path, list(files), looks_like_json_lines)
    rest = [file for file in found[1] if asks_for_unit]
    wrapped, _ = _doubts(path, rest, looks_wrapped)
    notices = []
    if found[0]:
        notices.append(
            f"{found[0]}: the first line is a JSON object, but a .txt file is read as plain text, field names and "
            "braces included. If these are JSON lines, rename to .jsonl."
        )
    if wrapped:
        notices.append(
            f"{wrapped}: the lines look wrapped at a fixed width, and each is read as a document of its own. If blank "
            "lines separate the paragraphs, set `--data.txt_documents paragraph`."
        )
    return notices


def looks_like_json_lines(path: Path) -> bool:
    """Whether the first line of a file that is not blank is a JSON object with fields."""
    _, line = next(read_lines(path, _ignore), (0, ""))
    if not line.lstrip().startswith("{"):
        return False
    try:
        return bool(json.loads(line))
    except (ValueError, RecursionError):
        return False


def looks_wrapped(path: Path) -> bool:
    """Whether the lines of a .txt file look like text that was wrapped at a fixed width.

    True if most of the first 200 lines are between 50 and 100 characters long, none is longer than 120, and most do
    not end a sentence.
    """
    lines: list[str] = []
    for _, line in islice(read_lines(path, _ignore), _LINES):
        if len(line) > 120:
            return False  # without reading on, because lines may be very long
        lines.append(line)
    if len(lines) < _LINES:
        return False
    half = len(lines) / 2
    full = sum(50 <= len(line) <= 100 for line in lines)
    return full > half and sum(line.rstrip()[-1] not in _LAST for line in lines) > half


def _doubts(source: Path, files: list[Path], is_doubtful: Callable[[Path], bool]) -> tuple[str, list[Path]]:
    """The doubtful files in words, empty if there are none, and the other files."""
    doubtful = [file for file in files if is_doubtful(file)]
    names = [str(file.relative_to(source)) for file in doubtful if file != source]
    others = [file for file in files if file not in doubtful]
    return (f"{source}: {listed(names, _NAMED)}" if names else str(source) if doubtful else ""), others


def _ignore(_: str) -> None:
    pass
