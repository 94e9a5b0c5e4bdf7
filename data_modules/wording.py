"""Words for error messages: what a value is, the nearest name to a misspelt one, a reason in one line."""

from __future__ import annotations

import datetime
import difflib
import numbers
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

_SHOWN = 40
"""Maximum number of characters of a value shown in a message."""

_TIMES = (datetime.date, datetime.time, datetime.timedelta)


def reason_of(error: BaseException, limit: int = 300) -> str:
    """The message of an error on one line, shortened.

    Args:
        error: Any exception.
        limit: Approximate maximum number of characters.
    """
    return shortened(" ".join(str(error).split()) or type(error).__name__, limit)


def shortened(text: str, limit: int) -> str:
    """Shorten text between words, so that no URL or path is cut in two.

    Args:
        text: A single line.
        limit: Maximum number of characters. A first word longer than this is cut.
    """
    if len(text) <= limit:
        return text
    return f"{text[: limit + 1].rpartition(' ')[0] or text[:limit]} [...]"


def counted(num: int, noun: str, plural: str = "") -> str:
    """A number with its noun: `1 line`, `1,200 lines`.

    Args:
        num: How many.
        noun: The noun for one.
        plural: The noun for several. Empty: the noun with an s.
    """
    return f"{num:,} {noun if num == 1 else plural or f'{noun}s'}"


def either(words: Iterable[str]) -> str:
    """Alternatives in words: `a string, a list of strings or null`.

    Args:
        words: At least one.
    """
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def kind_of(value: Any, mapping: str = "an object") -> str:
    """Describe a value in the file's terms rather than Python's: `null`, `a list`, `the number 3`.

    Args:
        value: Any value read from a file.
        mapping: What a mapping is called: JSON has objects, YAML mappings.
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, numbers.Number):
        return f"the number {str(value)[:_SHOWN]}"
    if isinstance(value, str):
        return f"the string {value[:_SHOWN]!r}{'...' * (len(value) > _SHOWN)}"
    if isinstance(value, Mapping):
        return mapping
    if isinstance(value, (bytes, bytearray)):
        return "binary data"
    if isinstance(value, (list, tuple)):
        return "a list"
    return "a date or time" if isinstance(value, _TIMES) else "neither a string nor a number"


def listed(names: Sequence[str], limit: int = 3) -> str:
    """The first few names, and the number of others: `a, b, c and 2 more`."""
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")


def did_you_mean(name: str, known: Iterable[str], *, num: int = 1, sign: str = "") -> str:
    """`did you mean ...?` for a misspelt name; empty if none is close.

    Args:
        name: The name as given.
        known: All names.
        num: Maximum number of names to suggest.
        sign: Prefix to show, such as `--`.
    """
    close = difflib.get_close_matches(name, sorted(known), n=num)
    return f"did you mean {' or '.join(f'{sign}{each}' for each in close)}?" if close else ""


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
