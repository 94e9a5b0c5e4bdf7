"""Edits of a text: which characters a rule replaces, and how many that removes and adds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import ne

Edit = tuple[int, int, str]
"""The characters from `start` to `stop` of a text, and what replaces them."""

_BEFORE, _AFTER = 20, 40
"""Characters of an excerpt before and after the start of an edit."""


@dataclass(frozen=True, slots=True)
class Drop:
    """The decision of a rule to drop a document.

    Attributes:
        reason: Why, in a few words: `12 characters`.
    """

    reason: str


def substitutions(text: str, pattern: re.Pattern[str], new: str | Callable[[re.Match[str]], str]) -> list[Edit]:
    """The edits of `pattern.sub(new, text)`, without those that change nothing.

    Args:
        text: Any text.
        pattern: What to replace.
        new: The replacement, literally, or a function of the match.
    """
    if isinstance(new, str):
        return [(found.start(), found.end(), new) for found in pattern.finditer(text) if found[0] != new]
    edits = ((found.start(), found.end(), new(found), found[0]) for found in pattern.finditer(text))
    return [(start, stop, replacement) for start, stop, replacement, old in edits if replacement != old]


def apply_edits(text: str, edits: Iterable[Edit]) -> tuple[str, int, int]:
    """Apply edits to a text.

    Args:
        text: The text before.
        edits: In order of position, not overlapping.

    Returns:
        The text after, the number of characters removed, and the number added. A character that an edit replaces by
        itself counts as neither.
    """
    parts, end, removed, added = [], 0, 0, 0
    for start, stop, new in edits:
        assert end <= start <= stop, "edits overlap"
        parts += [text[end:start], new]
        lost, gained = _difference(text[start:stop], new)
        removed, added, end = removed + lost, added + gained, stop
    parts.append(text[end:])
    return "".join(parts), removed, added


def excerpt(text: str, start: int) -> str:
    """The characters around a position, printable on one line: invisible characters are shown as escapes.

    Args:
        text: Any text.
        start: Where the first edit starts.
    """
    begin, end = max(0, start - _BEFORE), start + _AFTER
    shown = "".join(map(_visible, text[begin:end]))
    return f"{'…' * (begin > 0)}{shown}{'…' * (end < len(text))}"


def _difference(old: str, new: str) -> tuple[int, int]:
    """Characters removed and added: those that differ, or all but a common beginning and end."""
    if not new or not old:
        return len(old), len(new)
    if len(old) == len(new):
        changed = sum(map(ne, old, new))
        return changed, changed
    shared = _common(old, new)
    shared += _common(old[shared:][::-1], new[shared:][::-1])
    return len(old) - shared, len(new) - shared


def _common(one: str, other: str) -> int:
    """Length of the common beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (left, right) in pairs if left != right), min(len(one), len(other)))


def _visible(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
