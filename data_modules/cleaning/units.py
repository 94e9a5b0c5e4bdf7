"""A text as units, in which repetition and similarity are measured."""

from __future__ import annotations

import re
from zlib import crc32

import numpy as np
import numpy.typing as npt

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


def codes_of(units: list[str]) -> npt.NDArray[np.uint32]:
    """A hash of every unit, (N,), the same in every process.

    Args:
        units: Texts without line ends.
    """
    # one call in bulk; Python's own hash differs between processes
    encoded = "\n".join(units).encode("utf-8", "surrogatepass").split(b"\n") if units else []
    return np.array(list(map(crc32, encoded)), dtype=np.uint32)


def is_cjk(unit: str) -> bool:
    """Whether a unit is a single character of a script without spaces between words."""
    return _CJK.match(unit) is not None
