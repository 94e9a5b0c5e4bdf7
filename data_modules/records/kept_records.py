"""Keeps the records of a source in memory: every split that shares its files passes over all of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field

from data_modules.records.conversation import Conversation
from data_modules.records.counts import RecordCounts

Keyed = tuple[Conversation, list[str]]
"""A conversation and its keys, if they are needed."""

_MOST_CHARACTERS = 64_000_000
"""Larger sources are read once per split instead, so that memory does not grow with the data."""

_OVERHEAD = 1000
"""What a conversation takes besides its text, in characters."""


@dataclass
class _Notes(RecordCounts):
    """The counts of one source, which can be added to those of every split."""

    messages: list[str] = field(default_factory=list)

    def reject(self, message: str) -> None:
        super().reject(message)
        self.messages.append(message)

    def add_to(self, counts: RecordCounts) -> None:
        """Count in the same order as if the source were read again."""
        for message in self.messages:
            counts.reject(message)
        counts.records_read += self.records_read
        counts.formats += self.formats
        counts.changed_turns += self.changed_turns
        counts.columns_found |= self.columns_found
        for file, names in self.unknown_fields.items():
            counts.unknown_fields[file] += names


class KeptRecords:
    """The records of sources that have been read completely, as far as there is room.

    Args:
        most_characters: Maximum number of characters kept.
    """

    def __init__(self, most_characters: int = _MOST_CHARACTERS) -> None:
        self._room = most_characters
        self._sources: dict[Hashable, tuple[list[Keyed], _Notes]] = {}

    def read(
        self, source: Hashable, counts: RecordCounts, read: Callable[[RecordCounts], Iterator[Keyed]]
    ) -> Iterator[Keyed]:
        """The records of a source, from memory if they are kept.

        Args:
            source: Its name, and all settings that its records depend on.
            counts: Counts the records, once they have been read.
            read: Reads the source, if necessary. Counts what it does.

        Raises:
            UserError: If a record is invalid and `counts` does not allow it.
        """
        if source in self._sources:
            records, notes = self._sources[source]
            yield from records
        else:
            notes, kept, room = _Notes(counts.on_invalid), [], self._room
            for record in read(notes):
                room -= _size(record)
                if room >= 0:
                    kept.append(record)
                else:
                    kept.clear()
                yield record
            if room >= 0:
                self._room, self._sources[source] = room, (kept, notes)
        notes.add_to(counts)


def _size(record: Keyed) -> int:
    conversation, _ = record
    return _OVERHEAD + conversation.num_characters
