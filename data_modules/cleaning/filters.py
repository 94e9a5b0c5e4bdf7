"""Rules that drop lines or whole documents: boilerplate, length, repetition."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from data_modules.cleaning.edits import Drop, Edit
from data_modules.cleaning.options import check_patterns, option
from data_modules.cleaning.units import codes_of, is_cjk, units_of
from data_modules.wording import counted

Codes = npt.NDArray[np.uint64]
Sizes = npt.NDArray[np.int64]

_LINE = re.compile(r"[^\n]*\n?")


@dataclass(frozen=True)
class BoilerplateLines:
    """Removes lines that a pattern matches from beginning to end. White space around a line does not count."""

    patterns: tuple[str, ...] = option("Regular expressions; `.*` stands for any text.", str, many=-1)

    def __post_init__(self) -> None:
        check_patterns(self.patterns)

    def __call__(self, text: str) -> list[Edit]:
        """The edits of a text."""
        pattern = _any_of(self.patterns)
        lines = (line for line in _LINE.finditer(text) if line[0])
        return [(*line.span(), "") for line in lines if line[0].strip() and pattern.fullmatch(line[0].strip())]


@dataclass(frozen=True)
class MinLength:
    """Drops documents with fewer characters, not counting white space."""

    characters: int = option("Fewest characters.", int, 20, least=1)

    def __call__(self, text: str) -> list[Edit] | Drop:
        """The decision about a document."""
        num = len("".join(text.split()))
        return Drop(counted(num, "character")) if num < self.characters else []


@dataclass(frozen=True)
class MaxLength:
    """Drops documents with more characters, not counting white space."""

    characters: int = option("Most characters.", int, 1_000_000, least=1)

    def __call__(self, text: str) -> list[Edit] | Drop:
        """The decision about a document."""
        num = len("".join(text.split()))
        return Drop(counted(num, "character")) if num > self.characters else []


@dataclass(frozen=True)
class Repetition:
    """Drops documents that repeat themselves: repeated lines, one frequent n-gram, or many repeated n-grams. The
    limits are those of Gopher (Rae et al. 2021, arXiv 2112.11446, table A1). In Chinese and Japanese text, which has
    no spaces between words, 3 characters stand for 2 words."""

    words: int = option("Fewest words of a document that is judged; shorter ones stay.", int, 50, least=1)
    lines: float = option("Largest share of lines that repeat an earlier one.", float, 0.30, least=0, most=1)
    line_characters: float = option("Largest share of characters in such lines.", float, 0.20, least=0, most=1)
    frequent: tuple[float, ...] = option(
        "Largest share of characters in the most frequent 2-, 3- and 4-gram.",
        float,
        (0.20, 0.18, 0.16),
        least=0,
        most=1,
        many=3,
    )
    repeated: tuple[float, ...] = option(
        "Largest share of characters in n-grams that repeat an earlier one, for n from 5 to 10.",
        float,
        (0.15, 0.14, 0.13, 0.12, 0.11, 0.10),
        least=0,
        most=1,
        many=6,
    )

    def __call__(self, text: str) -> list[Edit] | Drop:
        """The decision about a document."""
        units = units_of(text)
        by_character = 2 * sum(map(is_cjk, units)) > len(units)
        if len(units) < _length(self.words, by_character):
            return []
        reason = self._in_lines(text) or self._in_units(units, by_character)
        return Drop(reason) if reason else []

    def _in_lines(self, text: str) -> str:
        lines = [stripped for line in text.split("\n") if (stripped := line.strip())]
        again = Counter(lines)
        num = len(lines) - len(again)
        size = sum(len(line) * (times - 1) for line, times in again.items())
        if num > self.lines * len(lines):
            return f"{num / len(lines):.0%} of its lines are repeated"
        if size > self.line_characters * sum(map(len, lines)):
            return f"{size / sum(map(len, lines)):.0%} of its characters are in repeated lines"
        return ""

    def _in_units(self, units: list[str], by_character: bool) -> str:
        codes = codes_of(units).astype(np.uint64)
        sizes = np.fromiter(map(len, units), np.int64, len(units))
        total = int(sizes.sum())
        for n, most in enumerate(self.frequent, start=2):
            size = _frequent_characters(codes, sizes, _length(n, by_character))
            if size > most * total:
                return f"{size / total:.0%} of its characters are in one {n}-gram"
        for n, most in enumerate(self.repeated, start=5):
            size = _repeated_characters(codes, sizes, _length(n, by_character))
            if size > most * total:
                return f"{size / total:.0%} of its characters are in repeated {n}-grams"
        return ""


def _length(n: int, by_character: bool) -> int:
    """Units of n words. A Chinese word has about 1.5 characters."""
    return (3 * n + 1) // 2 if by_character else n


def _grams(codes: Codes, n: int) -> Codes:
    """A hash of every run of n units, (N - n + 1,)."""
    grams = np.zeros(max(0, len(codes) - n + 1), dtype=np.uint64)
    for place in range(n):
        grams = (grams ^ (grams >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9) + codes[place : place + len(grams)]
    return grams


def _frequent_characters(codes: Codes, sizes: Sizes, n: int) -> int:
    """Characters in the most frequent n-gram (the longest of several), if it occurs more than once."""
    _, first, times = np.unique(_grams(codes, n), return_index=True, return_counts=True)
    most = int(times.max(initial=0))
    if most < 2:
        return 0
    return most * max(int(sizes[start : start + n].sum()) for start in first[times == most])


def _repeated_characters(codes: Codes, sizes: Sizes, n: int) -> int:
    """Characters of units in n-grams that occurred before; each is counted once."""
    grams = _grams(codes, n)
    is_new = np.zeros(len(grams), dtype=bool)
    is_new[np.unique(grams, return_index=True)[1]] = True
    steps = np.zeros(len(codes) + 1, dtype=np.int64)
    again = np.flatnonzero(~is_new)
    np.add.at(steps, again, 1)
    np.add.at(steps, again + n, -1)
    return int(sizes[np.cumsum(steps)[:-1] > 0].sum())


@cache
def _any_of(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns))
