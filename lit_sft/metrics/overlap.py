"""Which texts share runs of words with others: the search of contamination."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Generic, TypeVar

from lit_sft.metrics.text import words_of

_Name = TypeVar("_Name", bound=Hashable)


class RunIndex(Generic[_Name]):
    """Index of runs of words, to find texts in others.

    Args:
        texts: Names to texts, and how many consecutive words of each must match; all if it has fewer.
    """

    def __init__(self, texts: Mapping[_Name, tuple[str, int]]) -> None:
        self._owners: dict[tuple[str, ...], set[_Name]] = {}
        for name, (text, size) in texts.items():
            words = words_of(text)
            length = min(size, len(words))
            for run in _runs(words, length):
                self._owners.setdefault(run, set()).add(name)
        # most positions of a record start none of these runs
        self._lengths: dict[tuple[str, ...], set[int]] = {}
        for run in self._owners:
            self._lengths.setdefault(run[:2], set()).add(len(run))

    def find(self, text: str) -> set[_Name]:
        """Names of the texts that share a run with this one."""
        words = words_of(text)
        found: set[_Name] = set()
        for start in range(len(words)):
            for begin in (tuple(words[start : start + 2]), tuple(words[start : start + 1])):
                for length in self._lengths.get(begin, ()):
                    found |= self._owners.get(tuple(words[start : start + length]), set())
        return found


def _runs(words: list[str], length: int) -> Iterable[tuple[str, ...]]:
    return (tuple(words[start : start + length]) for start in range(len(words) - length + 1)) if length else ()
