"""Encoded documents in memory, as blocks read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

END, STOP = 0, 1
"""The end token, and the token that ends a sentence."""


@dataclass
class FakeShards:
    """Documents given as lists of ids."""

    documents: list[list[int]]
    sources: Any = None
    """Index of the source of each document; none: -1."""

    def __post_init__(self) -> None:
        self.starts = np.cumsum([0, *map(len, self.documents)]).astype(np.int64)
        numbers = [-1] * len(self.documents) if self.sources is None else self.sources
        self.sources = np.asarray(numbers, dtype=np.int16)
        self.num_bytes = np.asarray([len(each) - 1 for each in self.documents], dtype=np.int64)
        self.ids = np.asarray([token for document in self.documents for token in document], dtype=np.int32)

    def tokens(self, start: int, stop: int) -> npt.NDArray[np.int32]:
        """Ids of a range."""
        return self.ids[start:stop]

    def sentence_ends(self, start: int, stop: int) -> npt.NDArray[np.bool_]:
        """Whether a sentence ends with each token of a range."""
        assert 0 <= start <= stop <= len(self.ids)
        return self.ids[start:stop] == STOP


def of_letters(*texts: str, sources: list[int] | None = None) -> FakeShards:
    """Documents from text: `E` is the end token, `.` ends a sentence."""
    documents = [[{"E": END, ".": STOP}.get(letter, ord(letter)) for letter in text] for text in texts]
    return FakeShards(documents, sources)


def shown(shards: FakeShards, start: int, stop: int) -> str:
    """A range of tokens, as `of_letters` takes it."""
    return spelled(shards.ids[start:stop])


def spelled(ids: npt.NDArray[np.int32]) -> str:
    """The reverse of `of_letters`."""
    return "".join({END: "E", STOP: "."}.get(token, chr(token)) for token in ids.tolist())
