"""Finds conversations that occur twice: exactly, after normalising, with another answer, or nearly.

A first pass keeps 90 bytes of digests per conversation and no text. The digests tell which may be alike; a second
pass over the records compares these, so that everything reported is true.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

import numpy as np
import numpy.typing as npt

from data_modules.cleaning.minhash import least_values, mixed
from data_modules.records.content_keys import KeepTogether, content_key
from data_modules.records.conversation import Conversation, Message, Role

THRESHOLD = 0.8
"""Share of common character 5-grams from which two conversations are near-duplicates."""

MOST_CONVERSATIONS = 5_000_000
"""Conversations compared with each other; digests of more would take too much memory."""

_MOST_CANDIDATES = 20_000
"""Pairs of each kind that are compared in the second pass."""

_LOOKED_AT = 20_000
"""Characters of a conversation that near-duplicates are judged by."""

_SHOWN = 160
"""Characters of a question that are kept."""

_KEYS: tuple[KeepTogether, ...] = ("normalized", "prompt")

_GRAM = 5
_BANDS, _ROWS = 8, 4
_NOT_WORDS = re.compile(r"[\W_]+")
_GENERATOR = np.random.default_rng(20_000)
_MULTIPLIERS = (_GENERATOR.integers(1, 2**31, (_BANDS * _ROWS, 1), dtype=np.uint32) * 2 + 1).astype(np.uint32)
_POWERS = np.array([pow(1_000_003, power, 2**32) for power in range(_GRAM)], dtype=np.uint32)

Indices = npt.NDArray[np.int64]


Likeness = Literal["exact", "normalized", "prompt", "near"]
"""What two conversations have in common, from most to least. The middle two are those of `--data.keep_together`."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A conversation that may repeat an earlier one; both by their number in reading order.

    Attributes:
        likeness: What the two have in common, if they do.
        earlier: The first of its kind.
        later: The one that repeats it.
        in_one_split: Whether both are in the same split.
    """

    likeness: Likeness
    earlier: int
    later: int
    in_one_split: bool


@dataclass(frozen=True, slots=True)
class Traits:
    """What two conversations are compared by.

    Attributes:
        origin: Where it is.
        question: The beginning of its first message.
        keys: Its keys under `--data.keep_together`.
        grams: Its distinct character 5-grams, hashed, sorted.
    """

    origin: str
    question: str
    keys: dict[str, str]
    grams: Indices


class DuplicateIndex:
    """Remembers a few digests of every conversation."""

    def __init__(self) -> None:
        self._exact, self._normalised, self._prompts = array("Q"), array("Q"), array("Q")
        self._splits = array("B")
        self._bands: list[npt.NDArray[np.uint64]] = []
        self.is_full = False

    def __len__(self) -> int:
        return len(self._exact)

    def add(self, conversation: Conversation, split: int, *, nearly: bool = True) -> None:
        """Remember a conversation.

        Args:
            conversation: Any conversation or document.
            split: Number of its split.
            nearly: Whether to look for near-duplicates of it.
        """
        if len(self) >= MOST_CONVERSATIONS:
            self.is_full = True
            return
        turns = conversation.turns
        words = [_plain(_said(turn)) for turn in turns]
        first = next((place for place, turn in enumerate(turns) if turn.role is Role.ASSISTANT), 0)
        said = ("\n".join((turn.role, *turn.texts)) for turn in turns)
        self._exact.append(_digest("\0".join((*said, *conversation.tools))))
        self._normalised.append(_digest("\0".join(words)))
        # documents have no prompt
        self._prompts.append(_digest("\0".join(words[:first])) if first else len(self._prompts))
        self._splits.append(split)
        self._bands.append(_bands_of(_grams("".join(words))) if nearly else np.zeros(0, dtype=np.uint64))

    def candidates(self) -> list[Pair]:
        """The pairs that may be alike, the strongest likeness first; those with `exact` are certain."""
        free = np.ones(len(self), dtype=bool)
        pairs = self._equal("exact", np.frombuffer(self._exact, dtype=np.uint64), free, limit=len(self))
        free[[pair.later for pair in pairs]] = False
        pairs += self._equal("normalized", np.frombuffer(self._normalised, dtype=np.uint64), free)
        pairs += self._equal("prompt", np.frombuffer(self._prompts, dtype=np.uint64), free)
        bands = np.stack(self._bands) if self._bands else np.zeros((0, 0), dtype=np.uint64)
        near = {pair for band in bands.T for pair in self._equal("near", band, free)}
        return pairs + sorted(near, key=lambda pair: (pair.later, pair.earlier))[:_MOST_CANDIDATES]

    def _equal(
        self,
        likeness: Likeness,
        keys: npt.NDArray[np.uint64],
        free: npt.NDArray[np.bool_],
        limit: int = _MOST_CANDIDATES,
    ) -> list[Pair]:
        """Each free conversation with the first that has the same key."""
        first = _first_of_equal(keys)
        splits = np.frombuffer(self._splits, dtype=np.uint8)
        later = np.flatnonzero(free & (first != np.arange(len(first))))[:limit]
        return [Pair(likeness, int(first[i]), int(i), bool(splits[first[i]] == splits[i])) for i in later]


def traits_of(conversation: Conversation) -> Traits:
    """What a conversation is compared by."""
    words = "".join(_plain(_said(turn)) for turn in conversation.turns)
    spoken = [turn for turn in conversation.turns if turn.role is not Role.SYSTEM]
    return Traits(
        conversation.origin,
        spoken[0].content[:_SHOWN],
        {name: content_key(conversation, name) for name in _KEYS},
        np.unique(_grams(words)).astype(np.int64),
    )


def are_alike(likeness: Likeness, one: Traits, other: Traits) -> bool:
    """Whether two conversations that may be alike are."""
    if likeness == "near":
        return similarity(one.grams, other.grams) >= THRESHOLD
    return likeness == "exact" or one.keys[likeness] == other.keys[likeness]


def similarity(one: Indices, other: Indices) -> float:
    """The Jaccard similarity of two sorted sets."""
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / max(1, len(one) + len(other) - shared)


def _said(turn: Message) -> str:
    """What a message says without its thinking, which does not make two conversations differ."""
    if not turn.tool_calls:
        return turn.content + turn.context
    return "".join([turn.content, turn.context, *(call.name + call.arguments for call in turn.tool_calls)])


def _plain(text: str) -> str:
    """The letters and digits of a text in lower case. Conversations with equal keys have equal plain texts."""
    folded = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    return _NOT_WORDS.sub("", folded) or text


def _grams(text: str) -> npt.NDArray[np.uint32]:
    """A hash of every run of five characters, in order; at least one."""
    codes = np.frombuffer(text[:_LOOKED_AT].ljust(_GRAM).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    windows = len(codes) - _GRAM + 1
    hashes = np.zeros(windows, dtype=np.uint32)
    for place, power in enumerate(_POWERS):
        hashes += codes[place : place + windows] * power
    return mixed(hashes)


def _bands_of(hashes: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint64]:
    """MinHash signature in bands, (bands,): similar sets share at least one band with high probability.

    Source: Broder, "On the resemblance and containment of documents", 1997.
    """
    least = least_values(hashes, _MULTIPLIERS).reshape(_BANDS, _ROWS).astype(np.uint64)
    powers = np.array([1, 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], dtype=np.uint64)
    return np.asarray((least * powers).sum(axis=1), dtype=np.uint64)


def _first_of_equal(keys: npt.NDArray[np.uint64]) -> Indices:
    """For every key, the index of the first equal one, (N,)."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return np.asarray(first[inverse], dtype=np.int64)


def _digest(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
