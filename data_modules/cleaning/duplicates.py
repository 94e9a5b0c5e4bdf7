"""Rules about the whole set of documents: exact duplicates and near-duplicates. Of several alike, the first stays."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import ClassVar, Protocol

import numpy as np

from data_modules.cleaning.buckets import Buckets
from data_modules.cleaning.minhash import HASHES, deviation, signature_of, similarity
from data_modules.cleaning.options import option
from data_modules.cleaning.outcome import Change, Cleaned
from data_modules.records.content_keys import exact_text, normalized_text

_FOUND = 0.995
"""Share of the pairs at the threshold that are in a common bucket, and so are compared."""

_MOST_BANDS, _FEWEST_ROWS = 20, 4


class Finder:
    """Finds documents that repeat an earlier one, by their fingerprints in reading order.

    Args:
        buckets: Empty; finds the fingerprints that may be alike.
        least: Similarity from which documents count as repeated.
    """

    def __init__(self, buckets: Buckets, least: float) -> None:
        self._buckets, self._least = buckets, least
        self._places = array("Q")

    @property
    def num_bytes(self) -> int:
        """Memory of everything remembered."""
        return self._buckets.num_bytes + self._places.itemsize * len(self._places)

    def find(self, fingerprint: bytes, place: int) -> str:
        """Judge the next document.

        Args:
            fingerprint: The document's.
            place: Its number in reading order, for messages.

        Returns:
            What it repeats, in a few words; empty if it repeats nothing, in which case it is remembered.
        """
        new = np.frombuffer(fingerprint, dtype=np.uint8)
        numbers, others = self._buckets.candidates(new)
        likeness = similarity(new, others)
        alike = np.flatnonzero(likeness >= self._least)
        if not len(alike):
            self._buckets.add(new)
            self._places.append(place)
            return ""
        first = alike[0]
        like = "repeats" if self._least == 1 else f"about {min(1.0, likeness[first]):.0%} like"
        return f"{like} document {self._places[numbers[first]]:,}"


class SetRule(Protocol):
    """A rule about a set of documents: a frozen dataclass of its options."""

    size: ClassVar[int]
    """Bytes of a fingerprint."""

    def fingerprint(self, text: str) -> bytes:
        """What a clean document is judged by. May be computed in any process."""

    def finder(self) -> Finder:
        """A finder that has seen nothing yet."""


@dataclass(frozen=True)
class ExactDuplicates:
    """Drops documents that are the same as an earlier one. White space at the ends of lines and blank lines do not
    count; with `normalized`, neither do case, punctuation and Unicode variants."""

    likeness: str = option(
        "Which documents are the same: `exact` or `normalized`.", str, "exact", choices=("exact", "normalized")
    )

    size: ClassVar[int] = 8

    def fingerprint(self, text: str) -> bytes:
        """A digest of the text. Two of 10 million documents share one by chance once in 370,000 sets."""
        plain = exact_text(text) if self.likeness == "exact" else normalized_text(text)
        return blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=self.size).digest()

    def finder(self) -> Finder:
        """A finder of equal digests; 24 to 28 bytes for each document kept."""
        return Finder(Buckets(self.size, bands=1, rows=self.size), 1.0)


@dataclass(frozen=True)
class NearDuplicates:
    """Drops documents that nearly repeat an earlier one that stays: at least the given share of their runs of five
    words, or five characters of Chinese and Japanese, is common to both. Estimated by MinHash, without case and
    punctuation."""

    threshold: float = option("Jaccard similarity of the runs of two documents.", float, 0.8, least=0.5, most=1)

    size: ClassVar[int] = HASHES

    def fingerprint(self, text: str) -> bytes:
        """The MinHash signature of the text."""
        return signature_of(text).tobytes()

    def finder(self) -> Finder:
        """A finder of similar signatures; about 600 bytes for each document kept at a threshold of 0.8."""
        return Finder(Buckets(self.size, *bands_of(self.threshold)), least_estimate(self.threshold))


class Duplicates:
    """Judges clean documents by the rules about the whole set, in reading order.

    Args:
        rules: Label, position and rule of each, in order.
    """

    def __init__(self, rules: Sequence[tuple[str, int, SetRule]]) -> None:
        self._places = [(label, position) for label, position, _ in rules]
        self._finders = [(rule.size, rule.finder()) for _, _, rule in rules]
        self._num = 0

    def judge(self, outcome: Cleaned, places: Sequence[tuple[str, int]] | None = None) -> Cleaned:
        """The outcome of the next document: dropped if it repeats an earlier one that stayed.

        Args:
            outcome: What the rules about single documents did to it.
            places: Label and position of each rule in the ledger of its cleaner. None: those of the rules.
        """
        self._num += 1
        if outcome.is_dropped:
            return outcome
        start = 0
        for (label, position), (size, finder) in zip(places or self._places, self._finders, strict=True):
            found = finder.find(outcome.fingerprint[start : start + size], self._num)
            start += size
            if found:
                num = outcome.characters_kept
                return outcome.dropped_by(Change(label, position, num, 0, True, outcome.opening, "", found))
        return outcome


def bands_of(threshold: float) -> tuple[int, int]:
    """Bands and rows by which 99.5% of the pairs at a threshold share a bucket.

    More rows keep unlike documents apart, but need more bands, and so more memory.
    """
    for rows in range(16, _FEWEST_ROWS - 1, -1):
        missed = 1 - min(threshold, 0.999) ** rows
        bands = math.ceil(math.log(1 - _FOUND) / math.log(missed))
        if bands <= _MOST_BANDS:
            return bands, rows
    return min(bands, HASHES // _FEWEST_ROWS), _FEWEST_ROWS


def least_estimate(threshold: float) -> float:
    """The estimate from which documents are dropped: two standard deviations below the threshold, so that 97% of the
    pairs at the threshold are."""
    return threshold - 2 * deviation(threshold)
