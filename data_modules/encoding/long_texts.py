"""Encodes a very long text in windows, with the ids of the whole text and bounded memory.

    window 1    The cat sat on the mat and looked
    window 2                    the mat and looked at the dog, which slept.
    cut                            | where both have the same tokens for a while, at the end of a word

A tokenizer that splits text into words first, as byte-level BPE does, encodes what follows a cut as in the whole text.
Text without such a place in the overlap is encoded as one window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

WINDOW = 1_000_000
"""Characters of a window. A longer text is encoded in windows."""

_OVERLAPS = (4_000, 100_000)
"""Characters that two windows share; the second number is tried if the windows agree nowhere in the first."""

_ALIKE = 16
"""Tokens on both sides of a cut that must be the same in both windows."""

Tokens = Callable[[str], tuple[list[int], list[tuple[int, int]]]]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a text, encoded as in the whole text, which a tokenizer may not do with the part alone.

    Attributes:
        text: The part.
        ids: Its tokens, (T,).
        begins: The character of the part at which each token begins, (T,).
        ends: The character after each token, (T,).
    """

    text: str
    ids: npt.NDArray[np.int64]
    begins: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Window:
    """Characters `start` to `stop` of a text, its tokens, and the characters at which each begins and ends."""

    start: int
    stop: int
    ids: npt.NDArray[np.int64]
    begins: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]


def encode_long(
    text: str, tokens: Tokens, *, window: int = WINDOW, overlaps: tuple[int, ...] = _OVERLAPS
) -> Iterator[Part]:
    """Encode a long text part by part.

    Args:
        text: The text.
        tokens: Encodes a text: its ids, and the characters that each covers.
        window: Characters of a window.
        overlaps: Characters that two windows share, to be tried in turn.

    Returns:
        Parts that make up all of the text. A part ends with a letter or digit, and the next
        begins with neither, so no end of a sentence is divided.
    """
    done, current = 0, _encoded(text, 0, window, tokens)
    while current.stop < len(text):
        found = _following(text, current, done, tokens, window, overlaps)
        if found is None:
            current = _encoded(text, current.start, len(text) - current.start, tokens)
            break
        cut, following = found
        yield _part(text, current, done, cut)
        done, current = cut, following
    yield _part(text, current, done, len(text))


def _encoded(text: str, start: int, size: int, tokens: Tokens) -> _Window:
    stop = min(start + size, len(text))
    ids, places = tokens(text[start:stop])
    begins, ends = np.asarray(places, dtype=np.int64).reshape(-1, 2).T + start
    return _Window(start, stop, np.asarray(ids, dtype=np.int64), begins, ends)


def _following(
    text: str, current: _Window, done: int, tokens: Tokens, window: int, overlaps: tuple[int, ...]
) -> tuple[int, _Window] | None:
    """The next window and the cut before it; None if the two agree nowhere."""
    for overlap in overlaps:
        start = current.stop - overlap
        if start <= done or overlap >= window:
            return None
        following = _encoded(text, start, window, tokens)
        cut = _cut(text, current, following)
        if cut is not None and cut > done:
            return cut, following
    return None


def _cut(text: str, one: _Window, two: _Window) -> int | None:
    """The first place after the end of a word around which two windows have the same tokens."""
    first = int(np.searchsorted(one.begins, two.start))
    ids, begins = one.ids[first:], one.begins[first:]
    place_of = {(int(index), int(begin)): at for at, (index, begin) in enumerate(zip(two.ids, two.begins, strict=True))}
    alike, before = 0, -2
    for at, (index, begin) in enumerate(zip(ids.tolist(), begins.tolist(), strict=True)):
        place = place_of.get((index, begin), -2)
        alike = alike + 1 if place == before + 1 and place >= 0 else int(place >= 0)
        before = place
        middle = at - _ALIKE
        if alike > 2 * _ALIKE and _is_word_end(text, int(begins[middle])) and begins[middle] > begins[middle - 1]:
            return int(begins[middle])
    return None


def _is_word_end(text: str, place: int) -> bool:
    return text[place - 1].isalnum() and not text[place].isalnum()


def _part(text: str, window: _Window, start: int, stop: int) -> Part:
    """The text between two characters, with the tokens that begin there."""
    first = 0 if start == window.start else int(np.searchsorted(window.begins, start))
    last = len(window.ids) if stop == window.stop else int(np.searchsorted(window.begins, stop))
    ids, begins, ends = (each[first:last] for each in (window.ids, window.begins, window.ends))
    return Part(text[start:stop], ids, begins - start, ends - start)
