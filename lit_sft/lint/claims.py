"""Compares a dump with the labels that a trainer is known to make of the same records."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from data_modules.errors import UserError
from data_modules.progress import with_progress
from data_modules.records.conversation import Conversation
from data_modules.rendering.conventions import ResolvedConvention, expected_labels
from lit_sft.lint.labels import Flags
from lit_sft.lint.token_text import Ids

_UNLIMITED = 2**31


@dataclass(frozen=True, slots=True)
class _Expected:
    """What the trainer makes of a record: which tokens it supervises, packed as bits."""

    origin: str
    length: int
    supervised: bytes

    def flags(self) -> Flags:
        """Whether each token is supervised, (length,)."""
        bits = np.unpackbits(np.frombuffer(self.supervised, dtype=np.uint8), count=self.length)
        return bits.astype(bool)


class Claim:
    """The claim that a dump was made by a trainer from known records.

    Args:
        convention: What the trainer does.
        conversations: The records, in any order.
        max_length: The trainer's limit. None: no limit.

    Raises:
        UserError: If the trainer reads none of the records.
    """

    def __init__(
        self, convention: ResolvedConvention, conversations: Iterable[Conversation], max_length: int | None = None
    ) -> None:
        self.name = convention.name
        self._by_ids: dict[bytes, _Expected] = {}
        refused = ""
        for conversation in with_progress(conversations, f"encoding as {self.name}", "rows"):
            try:
                made = expected_labels(convention, conversation, max_length or _UNLIMITED)
            except UserError as error:  # the trainer does not read it, so it is not in the dump
                refused = refused or str(error).replace("--data.convention", "--as")
                continue
            if made is not None:
                ids, labels = (np.asarray(numbers, dtype=np.int64) for numbers in made)
                supervised = np.packbits(labels == ids).tobytes()
                self._by_ids[_key(ids)] = _Expected(conversation.origin, len(ids), supervised)
        if not self._by_ids:
            raise UserError(f"--as {self.name}: the trainer trains on none of these records. {refused}".rstrip())

    def difference(self, ids: Ids, supervised: Flags, padding: Flags) -> tuple[str, int] | None:
        """How a row differs from what the trainer makes of its record: in words, and at which token; None if not.

        Args:
            ids: Tokens, (T,).
            supervised: Whether each is supervised, (T,).
            padding: Whether each looks like padding, (T,).
        """
        real = np.flatnonzero(~padding)
        first, last = (int(real[0]), int(real[-1])) if len(real) else (0, len(ids) - 1)
        # if the pad token also ends answers, one token more or less may belong to the record
        for stop in (last + 1, last, last + 2):
            expected = self._by_ids.get(_key(ids[first:stop])) if stop <= len(ids) else None
            if expected:
                return self._compared(expected, supervised[first:stop], first)
        return "no record gives these ids", first

    def _compared(self, expected: _Expected, supervised: Flags, first: int) -> tuple[str, int] | None:
        wrong = np.flatnonzero(expected.flags() != supervised)
        if not len(wrong):
            return None
        place, does = int(wrong[0]), "is" if supervised[wrong[0]] else "is not"
        more = f" and {len(wrong) - 1:,} more" if len(wrong) > 1 else ""
        other = "does not supervise" if supervised[place] else "supervises"
        return (
            f"{expected.origin}: token {first + place:,}{more} {does} supervised; {self.name} {other} it",
            first + place,
        )


def _key(ids: Ids) -> bytes:
    return blake2b(ids.astype(np.int64).tobytes(), digest_size=16).digest()
