"""The script of every character of a text, and the language that a text seems to be in."""

from __future__ import annotations

import threading
from typing import Literal

import numpy as np
import numpy.typing as npt
from fontTools import unicodedata as unicode_data

COMMON = "no letters"
"""Name for texts of digits, punctuation and symbols only."""

Language = Literal["en", "zh"]

_HAN_SHARE = 0.3
"""Share of Han characters from which a text counts as Chinese: a Latin word among them has several letters."""

_KANA_SHARE = 0.05
"""Share of kana from which it counts as Japanese instead."""

_LATIN_SHARE = 0.7

_NEUTRAL = {"Zyyy", "Zinh", "Zzzz"}
"""Characters of no script: common, inherited from the one before, unknown."""


class ScriptTable:
    """Finds the scripts of characters, in any thread. Digits, spaces and others of no script count with the letters
    before them.

    Attributes:
        names: Names of the scripts seen so far, by code.
    """

    def __init__(self) -> None:
        self.names = [COMMON]
        self._codes = {COMMON: 0}
        self._table = np.full(0x110000, -1, dtype=np.int16)
        self._lock = threading.Lock()  # two threads must not give one script two codes

    def codes(self, text: str) -> npt.NDArray[np.int16]:
        """The code of each character's script, (characters,)."""
        points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
        codes: npt.NDArray[np.int16] = self._table[points]
        if (codes < 0).any():
            with self._lock:
                for point in np.unique(points[codes < 0]).tolist():
                    self._table[point] = self._code(unicode_data.script(chr(point)))
            codes = self._table[points]
        places = np.flatnonzero(codes)
        if not len(places):
            return codes
        # the last letter at or before each character; the first letter for those before it
        before = np.searchsorted(places, np.arange(len(codes)), side="right") - 1
        return np.asarray(codes[places[before.clip(min=0)]])

    def _code(self, script: str) -> int:
        if script in _NEUTRAL:
            return 0
        name = unicode_data.script_name(script).replace("_", " ")
        if name not in self._codes:
            self._codes[name] = len(self.names)
            self.names.append(name)
        return self._codes[name]


def script_shares(text: str) -> dict[str, float]:
    """The share of a text's characters in each script, largest first; empty without letters."""
    codes = _TABLE.codes(text)
    counts = np.bincount(codes[codes > 0])
    total = int(counts.sum())
    shares = {_TABLE.names[code]: float(counts[code] / total) for code in np.flatnonzero(counts)}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def language_of(text: str) -> Language | None:
    """The language that a text seems to be in, by its script: any text in Latin letters counts as English.

    Returns:
        None for any other script (Japanese too), and for a text without letters.
    """
    shares = script_shares(text)
    kana = shares.get("Hiragana", 0.0) + shares.get("Katakana", 0.0)
    if shares.get("Han", 0.0) >= _HAN_SHARE:
        return "zh" if kana < _KANA_SHARE else None
    return "en" if shares.get("Latin", 0.0) >= _LATIN_SHARE else None


def bytes_of_characters(text: str) -> npt.NDArray[np.int64]:
    """The UTF-8 bytes of each character, (characters,)."""
    points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    return 1 + (points > 0x7F).astype(np.int64) + (points > 0x7FF) + (points > 0xFFFF)


_TABLE = ScriptTable()
