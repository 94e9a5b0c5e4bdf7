"""A record: named fields, and where they were read from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Reject = Callable[[str], None]
"""Called with the message for an unusable record, including its place; either raises it or counts the record."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a file.

    Attributes:
        fields: Values by field name.
        origin: `file:line` (`file:row N` for parquet, `name:N` for a hub dataset), counted from 1.
        columns: For fields with another name in the file, this name.
    """

    fields: dict[str, Any]
    origin: str
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """The file or dataset, without the line."""
        return self.origin.rpartition(":")[0]

    @property
    def field_names(self) -> str:
        """The field names as in the file, made printable for messages."""
        return ", ".join(readable(self.columns.get(name, name)) for name in self.fields)


def readable(name: str) -> str:
    """A name from a file, shortened and made printable."""
    return (name if name.isprintable() else ascii(name))[:60]
