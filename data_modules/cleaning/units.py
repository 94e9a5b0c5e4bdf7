"""A text as units that repetition and likeness are measured in."""

from __future__ import annotations

import re

from data_modules.cleaning.characters import CJK

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
