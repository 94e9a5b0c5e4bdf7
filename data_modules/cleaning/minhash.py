"""MinHash signatures: short digests of texts from which their similarity is estimated."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from data_modules.cleaning.units import codes_of, units_of

HASHES = 384
"""Hash functions of a signature, and its bytes. An estimate of 0.8 has a standard deviation of 0.02."""

SHINGLE = 5
"""Units of a shingle: words, or characters of Chinese and Japanese."""

Signature = npt.NDArray[np.uint8]
Hashes = npt.NDArray[np.uint32]

_BLOCK = 1024
"""Shingles hashed at a time, so that memory does not grow with the text."""

_CHANCE = 1 / 256
"""Share of bytes that unlike texts have in common by chance."""


def signature_of(text: str) -> Signature:
    """The signature of a text's shingles, (HASHES,), the same on every machine.

    Args:
        text: Any text. Case, punctuation and white space do not count.
    """
    return signature_of_hashes(shingles_of(text))


def signature_of_hashes(hashes: Hashes) -> Signature:
    """The signature of a set, (HASHES,), the same on every machine.

    A byte of it is the last byte of the least value of one hash function over all elements. Two sets have the same
    least value with a probability equal to their Jaccard similarity.

    Source: Broder, "On the resemblance and containment of documents", 1997; one byte of each value: Li and König,
    "b-Bit Minwise Hashing", 2010.

    Args:
        hashes: Hashes of its elements, (N,), at least one.
    """
    least = least_values(hashes, _MULTIPLIERS)
    return (mixed(least) >> np.uint32(24)).astype(np.uint8)


def similarity(one: Signature, others: Signature) -> npt.NDArray[np.float64]:
    """Estimates of the Jaccard similarity of the shingles of two texts, at most 1; a little below 0 if unlike.

    Args:
        one: A signature, (HASHES,).
        others: Signatures, (N, HASHES).
    """
    equal = (others == one).mean(axis=1)
    return np.asarray((equal - _CHANCE) / (1 - _CHANCE), dtype=np.float64)


def deviation(likeness: float) -> float:
    """The standard deviation of an estimate of a similarity."""
    equal = likeness + (1 - likeness) * _CHANCE
    return math.sqrt(equal * (1 - equal) / HASHES) / (1 - _CHANCE)


def shingles_of(text: str) -> Hashes:
    """A hash of every run of five units, in order; at least one. A shorter text is one shingle.

    Args:
        text: Any text.
    """
    codes = codes_of(units_of(text) or [text.replace("\n", " ")])
    num = max(1, len(codes) - SHINGLE + 1)
    hashes = np.full(num, min(len(codes), SHINGLE), dtype=np.uint32)
    for place in range(min(SHINGLE, len(codes))):
        hashes = mixed(hashes * np.uint32(0x9E3779B1) + codes[place : place + num])
    return hashes


def least_values(hashes: Hashes, multipliers: Hashes) -> Hashes:
    """The least value of each hash function over a set, (multipliers,).

    Args:
        hashes: Hashes of the elements of the set, (N,), at least one.
        multipliers: An odd number for each hash function, (functions, 1).
    """
    least = np.full(len(multipliers), np.iinfo(np.uint32).max, dtype=np.uint32)
    for start in range(0, len(hashes), _BLOCK):
        least = np.minimum(least, (hashes[None, start : start + _BLOCK] * multipliers).min(axis=1))
    return least


def mixed(hashes: Hashes) -> Hashes:
    """Spread the bits of hashes. Source: the finalizer of MurmurHash3."""
    hashes = (hashes ^ (hashes >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    hashes = (hashes ^ (hashes >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return hashes ^ (hashes >> np.uint32(16))


# not from a generator of NumPy, whose numbers may change between its versions
_MULTIPLIERS: Hashes = mixed(np.arange(1, HASHES + 1, dtype=np.uint32) * np.uint32(0x9E3779B9))[:, None] | np.uint32(1)
