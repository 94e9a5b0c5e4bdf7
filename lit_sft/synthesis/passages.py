"""The part of an article, or the parts, that requests are about."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator

from data_modules.encoding.sentence_ends import sentence_ends

_NOT_SPACE = re.compile(r"\S")


def passages(text: str, longest: int, *, split: bool) -> Iterator[tuple[int, int]]:
    """Start and stop of the texts that requests are about, without white space around them.

    Args:
        text: An article, not blank.
        longest: Most characters of a text.
        split: Whether a longer article becomes several texts; else only its beginning is used.
    """
    ends = sentence_ends(text)[0].tolist() if len(text) > longest else []
    start = 0
    while (first := _NOT_SPACE.search(text, start)) is not None:
        start = first.start()
        stop = len(text) if len(text) - start <= longest else _stop(text, start, start + longest, ends)
        yield start, start + len(text[start:stop].rstrip())
        if not split:
            return
        start = stop


def _stop(text: str, start: int, limit: int, ends: list[int]) -> int:
    """The last sentence end that fits, else the last white space, else the limit."""
    found = bisect_right(ends, limit) - 1
    if found >= 0 and ends[found] > start:
        return ends[found]
    spaces = [match.start() for match in re.finditer(r"\s", text[start:limit])]
    return start + spaces[-1] if spaces else limit
