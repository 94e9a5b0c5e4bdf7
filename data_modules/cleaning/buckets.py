"""Finds earlier fingerprints that share some of their bytes with a new one, in bounded memory per fingerprint."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_CHUNK = 16_384
"""Fingerprints per array: full arrays stay where they are, so growing never copies them."""

_SMALLEST = 1024
"""Buckets of each band at the start."""

_MOST_COMPARED = 256
"""Fingerprints of a bucket that are compared, the latest first, so that large buckets do not slow down the search."""

Indices = npt.NDArray[np.int32]


class Buckets:
    """Fingerprints in buckets. Each is in one bucket per band, a band being some of its bytes.

    Memory per fingerprint, in bytes: its size, and 8 to 12 for every band.

    Args:
        size: Bytes of a fingerprint.
        bands: Bands of a fingerprint, one after the other from its first byte.
        rows: Bytes of a band, at most 16.
    """

    def __init__(self, size: int, bands: int, rows: int) -> None:
        assert bands * rows <= size
        assert rows <= 16
        self._size, self._bands, self._rows = size, bands, rows
        self._chunks: list[npt.NDArray[np.uint8]] = []
        self._next: list[Indices] = []
        self._heads = np.full((bands, _SMALLEST), -1, dtype=np.int32)
        self._num = 0

    def __len__(self) -> int:
        return self._num

    @property
    def num_bytes(self) -> int:
        """Memory of all fingerprints and buckets."""
        return self._heads.nbytes + sum(each.nbytes for each in self._chunks) + sum(each.nbytes for each in self._next)

    def add(self, fingerprint: npt.NDArray[np.uint8]) -> None:
        """Remember a fingerprint, (size,)."""
        if self._num == self._heads.shape[1]:
            self._grow()
        if self._num == len(self._chunks) * _CHUNK:
            self._chunks.append(np.zeros((_CHUNK, self._size), dtype=np.uint8))
            self._next.append(np.full((_CHUNK, self._bands), -1, dtype=np.int32))
        chunk, row = divmod(self._num, _CHUNK)
        self._chunks[chunk][row] = fingerprint
        buckets = self._buckets_of(fingerprint[None])[0]
        every = np.arange(self._bands)
        self._next[chunk][row] = self._heads[every, buckets]
        self._heads[every, buckets] = self._num
        self._num += 1

    def candidates(self, fingerprint: npt.NDArray[np.uint8]) -> tuple[list[int], npt.NDArray[np.uint8]]:
        """The earlier fingerprints that share a bucket with one, each once, in order of addition.

        Args:
            fingerprint: Bytes, (size,).

        Returns:
            Their numbers, counted from 0, and their bytes, (N, size).
        """
        found: set[int] = set()
        latest = self._heads[np.arange(self._bands), self._buckets_of(fingerprint[None])[0]]
        for band, number in enumerate(latest.tolist()):
            for _ in range(_MOST_COMPARED):
                if number < 0:
                    break
                found.add(number)
                number = int(self._next[number // _CHUNK][number % _CHUNK, band])
        numbers = sorted(found)
        bytes_of = np.empty((len(numbers), self._size), dtype=np.uint8)
        for place, number in enumerate(numbers):
            bytes_of[place] = self._chunks[number // _CHUNK][number % _CHUNK]
        return numbers, bytes_of

    def _buckets_of(self, fingerprints: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        """The bucket of every band, (N, bands)."""
        bands = fingerprints[:, : self._bands * self._rows].reshape(len(fingerprints), self._bands, self._rows)
        words = np.zeros((*bands.shape[:2], 16), dtype=np.uint8)
        words[..., : self._rows] = bands
        halves = words.view("<u8")
        keys = halves[..., 0] * np.uint64(0x9E3779B97F4A7C15) ^ halves[..., 1] * np.uint64(0xC2B2AE3D27D4EB4F)
        keys = (keys ^ (keys >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
        return np.asarray((keys >> np.uint64(32)) % np.uint64(self._heads.shape[1]), dtype=np.int64)

    def _grow(self) -> None:
        """Double the buckets."""
        self._heads = np.full((self._bands, 2 * self._heads.shape[1]), -1, dtype=np.int32)
        for chunk, (fingerprints, following) in enumerate(zip(self._chunks, self._next, strict=True)):
            first = chunk * _CHUNK
            buckets = self._buckets_of(fingerprints[: self._num - first])
            numbers = np.arange(first, first + len(buckets), dtype=np.int32)
            for band in range(self._bands):
                _link(self._heads[band], following[: len(buckets), band], buckets[:, band], numbers)


def _link(heads: Indices, following: Indices, buckets: npt.NDArray[np.int64], numbers: Indices) -> None:
    """Put numbers into the chains of one band, as if one after the other.

    Args:
        heads: The latest number in each bucket, (buckets,), updated.
        following: The number before each in its bucket, (N,), updated.
        buckets: The bucket of each, (N,).
        numbers: The numbers, ascending, (N,).
    """
    order = np.argsort(buckets, kind="stable")
    ordered = buckets[order]
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    before = np.empty(len(order), dtype=np.int32)
    before[1:] = numbers[order[:-1]]
    before[is_first] = heads[ordered[is_first]]
    following[order] = before
    is_last = np.ones(len(order), dtype=bool)
    is_last[:-1] = is_first[1:]
    heads[ordered[is_last]] = numbers[order[is_last]]
