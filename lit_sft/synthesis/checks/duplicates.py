"""The rule about repeated questions, within an article and across articles: MinHash of the words that carry content."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from data_modules.cleaning.buckets import Buckets
from data_modules.cleaning.duplicates import bands_of
from data_modules.cleaning.minhash import HASHES, mixed, signature_of_hashes, similarity
from data_modules.cleaning.options import option
from data_modules.cleaning.units import codes_of
from lit_sft.synthesis.candidate import Candidate
from lit_sft.synthesis.checks.numbers import numbers_in
from lit_sft.synthesis.checks.words import content_of_question

_DIGEST = 8
"""Bytes of a digest of a question's numbers, and of an article's id."""

Fingerprint = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Duplicates:
    """Refuses pairs whose question nearly repeats that of an accepted pair, of the same article or another: it has the
    same numbers and at least the given share of words that carry content. Conversations are compared by their
    last question, and by whether the earlier ones are the same."""

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
    """Finds questions that repeat one of an accepted pair; about 600 bytes for each of those.

    Args:
        threshold: Jaccard similarity from which questions count as repeated.
    """

    def __init__(self, threshold: float) -> None:
        self._buckets = Buckets(HASHES + _DIGEST, *bands_of(threshold))
        self._least = threshold
        self._articles = array("Q")

    @property
    def num_bytes(self) -> int:
        """Memory of everything remembered."""
        return self._buckets.num_bytes + self._articles.itemsize * len(self._articles)

    def find(self, candidate: Candidate) -> str:
        """Which accepted conversation one repeats; empty if none."""
        new = fingerprint_of(candidate)
        numbers, others = self._buckets.candidates(new)
        likeness = similarity(new[:HASHES], others[:, :HASHES])
        has_numbers = (others[:, HASHES:] == new[HASHES:]).all(axis=1)
        alike = np.flatnonzero((likeness >= self._least) & has_numbers)
        if not len(alike):
            return ""
        first = alike[0]
        where = "this" if self._articles[numbers[first]] == _article(candidate) else "another"
        return f"about {min(1.0, likeness[first]):.0%} like accepted pair {numbers[first] + 1:,}, of {where} article"

    def add(self, candidate: Candidate) -> None:
        """Remember an accepted conversation."""
        self._buckets.add(fingerprint_of(candidate))
        self._articles.append(_article(candidate))


def fingerprint_of(candidate: Candidate) -> Fingerprint:
    """What questions are compared by: the signature of their content, and a digest of their numbers, (HASHES + 8,)."""
    questions = " ".join(question for question, _ in candidate.turns)
    *earlier, (last, _) = candidate.turns
    # one element for each earlier question: what follows it decides whether conversations are alike
    words = [" ".join(content_of_question(question)) for question, _ in earlier] + content_of_question(last)
    signature = signature_of_hashes(mixed(codes_of(words)))
    values = " ".join(sorted(numbers_in(questions)))
    return np.concatenate([signature, np.frombuffer(_digest(values), dtype=np.uint8)])


def _article(candidate: Candidate) -> int:
    return int.from_bytes(_digest(candidate.article.id), "little")


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST).digest()
