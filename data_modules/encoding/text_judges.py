"""Drops documents that repeat an earlier one, by the cleaning rules about the whole set."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from data_modules.cleaning.cleaner import Cleaner
from data_modules.cleaning.duplicates import Duplicates
from data_modules.cleaning.outcome import Cleaned
from data_modules.encoding.text_chunks import EncodedDocuments

_HEADER = struct.Struct("<III")
"""Length of the rules' identity, number of fingerprints, bytes of each. The identity and the fingerprints follow."""


class Judges:
    """Compares documents with those before them in all splits and sources with the same rules about duplicates.

    Memory: what the rules remember; see `Duplicates`.

    Args:
        cleaners: The cleaners of all sources.
    """

    def __init__(self, cleaners: Iterable[Cleaner]) -> None:
        self._judges: dict[str, Duplicates] = {}
        for cleaner in cleaners:
            key = _key(cleaner)
            self._judges[key] = self._judges.get(key) or cleaner.duplicates()

    def judge(
        self, cleaner: Cleaner, chunk: EncodedDocuments, unlike: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[np.bool_], bytes]:
        """Compare the documents of a chunk with earlier ones, and count in its ledger what cleaning did to them.

        Args:
            cleaner: What cleaned them.
            chunk: Documents.
            unlike: Which of them are in no earlier split, (N,) bool; the others are not compared.

        Returns:
            Which documents to write, (N,) bool; and the bytes from which `replay` restores the fingerprints.
        """
        if not chunk.outcomes:
            return unlike, b""
        keep, fingerprints = unlike.copy(), []
        duplicates = self._judges[key := _key(cleaner)]
        for index, (outcome, origin) in enumerate(zip(chunk.outcomes, chunk.origins, strict=True)):
            judged = outcome
            if unlike[index]:
                judged = duplicates.judge(outcome, cleaner.places_of_set_rules)
                fingerprints.append(outcome.fingerprint)
            keep[index] &= not judged.is_dropped
            chunk.counts.cleaning.add(judged, origin)
        if not fingerprints:
            return keep, b""
        header = _HEADER.pack(len(key.encode()), len(fingerprints), len(fingerprints[0]))
        return keep, b"".join([header, key.encode(), *fingerprints])

    def replay(self, judged: bytes) -> None:
        """Remember documents that an earlier process compared.

        Args:
            judged: The bytes that `judge` returned, one after the other.
        """
        at = 0
        while at < len(judged):
            num_key, count, size = _HEADER.unpack_from(judged, at)
            at += _HEADER.size
            key = judged[at : at + num_key].decode()
            at += num_key
            for _ in range(count):
                self._judges[key].judge(Cleaned("", 0, 0, fingerprint=judged[at : at + size]))
                at += size


def _key(cleaner: Cleaner) -> str:
    return json.dumps(cleaner.set_identity())
