"""The rule about repeated questions, within an article and across articles: by the words that carry content."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np

from data_modules.cleaning.buckets import Buckets
from data_modules.cleaning.duplicates import bands_of
from data_modules.cleaning.minhash import mixed, signature_of_hashes
from data_modules.cleaning.options import option
from data_modules.cleaning.units import codes_of
from lit_sft.synthesis.candidate import Candidate
from lit_sft.synthesis.checks.numbers import numbers_in
from lit_sft.synthesis.checks.words import asked_of, content_of_question

_SHORT = 16
"""Content words, or characters, up to which a single one that is replaced makes another question: it may be a name."""


@dataclass(frozen=True)
class Duplicates:
    """Refuses pairs whose question nearly repeats that of an accepted pair, of the same article or another: it asks
    for the same (how many is not how high), has the same numbers and at least the given share of words that carry
    content, and in short questions no word is replaced by another. Conversations are compared by their last
    question, and by whether the earlier ones are the same."""

    # Single words and characters, because a question of ten characters has too few longer runs: replacing one
    # character changes half of its runs of five. Without function words, a share of 0.8 tells questions with other
    # function words or another order from those that differ in one word.
    threshold: float = option(
        "Jaccard similarity of the words of two questions, without function words; characters in Chinese.",
        float,
        0.8,
        least=0.5,
        most=1,
    )

    def finder(self) -> DuplicateFinder:
        """A finder that has seen nothing yet."""
        return DuplicateFinder(self.threshold)


class DuplicateFinder:
    """Finds questions that repeat one of an accepted pair; about 400 bytes for each of those at a threshold of 0.8.

    MinHash finds the questions that may be alike. Their words decide: an estimate from so few is too rough.

    Args:
        threshold: Jaccard similarity from which questions count as repeated.
    """

    def __init__(self, threshold: float) -> None:
        bands, rows = bands_of(threshold)
        self._size = bands * rows
        self._buckets = Buckets(self._size, bands, rows)
        self._threshold = threshold
        self._articles = array("Q")
        self._words, self._ends = array("I"), array("Q", [0])

    @property
    def num_bytes(self) -> int:
        """Memory of everything remembered."""
        arrays = (self._articles, self._words, self._ends)
        return self._buckets.num_bytes + sum(each.itemsize * len(each) for each in arrays)

    def find(self, candidate: Candidate) -> str:
        """Which accepted conversation one repeats; empty if none."""
        words = words_of(candidate)
        numbers, _ = self._buckets.candidates(self._bands(words))
        for number in numbers:
            other = frozenset(self._words[self._ends[number] : self._ends[number + 1]])
            likeness = likeness_of(words, other)
            if likeness >= self._threshold:
                return (
                    f"repeats accepted pair {number + 1:,}{self._where(number, candidate)}: {likeness:.0%} of the words"
                )
        return ""

    def add(self, candidate: Candidate) -> None:
        """Remember an accepted conversation."""
        words = words_of(candidate)
        self._buckets.add(self._bands(words))
        self._articles.append(_article(candidate))
        self._words.extend(sorted(words))
        self._ends.append(len(self._words))

    def _where(self, number: int, candidate: Candidate) -> str:
        if not candidate.article.text:
            return ""
        return f", about {'this' if self._articles[number] == _article(candidate) else 'another'} article"

    def _bands(self, words: frozenset[int]) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        return signature_of_hashes(np.array(sorted(words), dtype=np.uint32))[: self._size]


def likeness_of(one: frozenset[int], other: frozenset[int]) -> float:
    """The Jaccard similarity of the words of two questions; 0 if a short one has a word replaced.

    Args:
        one: Hashes of content words, at least one.
        other: The same of another question.
    """
    if len(one) <= _SHORT and one - other and other - one:
        return 0.0
    return len(one & other) / len(one | other)


@lru_cache(maxsize=1)  # an accepted conversation is looked for, then remembered
def words_of(candidate: Candidate) -> frozenset[int]:
    """What conversations are compared by: hashes of the words of their questions that carry content.

    Questions of another kind or with other numbers have nothing in common: every word is hashed together with these.
    """
    *earlier, (last, _) = candidate.turns
    # one element for each earlier question: what follows it decides whether conversations are alike
    words = [" ".join(content_of_question(question)) for question, _ in earlier] + content_of_question(last)
    numbers = sorted(numbers_in(" ".join(question for question, _ in candidate.turns)))
    salt = np.uint32(int.from_bytes(_digest(" ".join([asked_of(last), *numbers]))[:4], "little"))
    return frozenset(mixed(codes_of(words) ^ salt).tolist())


def _article(candidate: Candidate) -> int:
    return int.from_bytes(_digest(candidate.article.id), "little")


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
