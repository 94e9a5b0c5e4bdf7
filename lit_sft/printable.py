"""Makes untrusted text safe to print: no terminal control sequences, no invisible characters."""

from __future__ import annotations

import re
import unicodedata

_INVISIBLE = ("Cc", "Cf", "Cs", "Zl", "Zp")
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2065\u2800\u3164\ufe00-\ufe0d\uffa0\ufff0-\ufff8"
    "\U00016fe4\U0001d159\U000e0000-\U000e0fff]"
)
"""Invisible characters of other categories: fillers, the braille blank, variation selectors."""

_JOINERS = "\u200c\u200d\ufe0e\ufe0f"
"""Some scripts and emoji need these, so they stay as they are."""


def printable(text: str, *, keep_lines: bool = False) -> str:
    """Show control characters as symbols (␛ for escape) and other invisible ones as codes.

    Args:
        text: Any text, from data or a model.
        keep_lines: Whether to keep line breaks.
    """
    return "".join(character if keep_lines and character == "\n" else _sign(character) for character in text)


def excerpt(text: str, limit: int) -> str:
    """Make text printable on one line, and keep only the beginning of a long one.

    Models may produce anything, including terminal escape sequences and direction overrides.

    Args:
        text: Any text.
        limit: Characters to keep, at most.
    """
    shown = printable(text[:limit])
    return shown if len(text) <= limit else f"{shown}… (+{len(text) - limit:,} characters)"


def _sign(character: str) -> str:
    if character == "\n":
        return "↵"
    if character < " ":
        return chr(0x2400 + ord(character))  # the block "control pictures"
    is_hidden = unicodedata.category(character) in _INVISIBLE or _BLANK.match(character)
    if is_hidden and character not in _JOINERS:
        return f"\\u{ord(character):04x}"
    return character
