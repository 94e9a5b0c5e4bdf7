"""Conversion between simplified and traditional Chinese by OpenCC."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from data_modules.cleaning.edits import Edit
from data_modules.cleaning.options import option
from data_modules.errors import UserError

_CONFIGS = {"simplified": "t2s", "traditional": "s2t", "taiwan": "s2tw", "hong_kong": "s2hk"}
_CHARACTERS = re.compile("[^\0\ud800-\udfff]+")  # OpenCC takes neither a null character nor a lone surrogate
_PIECE = re.compile(r"[^\n，。；！？、]*[\n，。；！？、]?")


@dataclass(frozen=True)
class ChineseScript:
    """Converts Chinese characters between scripts, by words where one character has several (頭髮 and 發現). Needs
    `pip install "lit_sft[chinese]"` (OpenCC)."""

    to: str = option(
        "`simplified`, or traditional characters as in OpenCC's standard (`traditional`), `taiwan` or `hong_kong`.",
        str,
        "simplified",
        choices=tuple(_CONFIGS),
    )

    def __post_init__(self) -> None:
        _converter(self.to)

    def __call__(self, text: str) -> list[Edit]:
        """The edits of a text."""
        if text.isascii():
            return []
        new = _CHARACTERS.sub(lambda run: _converter(self.to).convert(run[0]), text)
        return [] if new == text else _edits(text, new)


def opencc_version() -> str:
    """The installed version of OpenCC, which decides how words are converted."""
    from importlib.metadata import version

    return version("opencc")


@cache
def _converter(to: str) -> Any:
    try:
        from opencc import OpenCC
    except ImportError:
        raise UserError(
            'needs OpenCC, which is not installed: pip install "lit_sft[chinese]" (or leave the rule out).'
        ) from None
    return OpenCC(_CONFIGS[to])


def _edits(old: str, new: str) -> list[Edit]:
    """The edits between two spellings of a text, piece by piece between punctuation marks, which stay."""
    before, after = _PIECE.findall(old), _PIECE.findall(new)
    if len(before) != len(after):
        return [(0, len(old), new)]
    edits, start = [], 0
    for piece, other in zip(before, after, strict=True):
        if piece != other:
            edits.append((start, start + len(piece), other))
        start += len(piece)
    return edits
