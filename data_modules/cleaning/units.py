"""A text as units that repetition and likeness are measured in."""

from __future__ import annotations

import re

CJK = (
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3031-\u303c\u3040-\u30ff\u3105-\u312f"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
"""Ideographs, kana and Bopomofo, for a character class: the scripts that have full-width punctuation."""

_UNIT = re.compile(rf"[{CJK}]|[^\W{CJK}]+")
_CJK = re.compile(f"[{CJK}]")


def units_of(text: str) -> list[str]:
    """Words of Latin and other spaced text, single characters of Chinese and Japanese; in lower case, no punctuation.

    Args:
        text: Any text.
    """
    return _UNIT.findall(text.lower())


def is_cjk(unit: str) -> bool:
    """Whether a unit is a single character of a script without spaces between words."""
    return _CJK.match(unit) is not None
