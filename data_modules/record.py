"""A record: named fields and the place they were read from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Reject = Callable[[str], None]
"""Takes the located message of a record that cannot be used; raises, or counts it and returns."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a file.

    Attributes:
        fields: Field name to value.
        origin: `file:line` (`file:row N` for parquet, `name:N` for a hub dataset), counted from 1.
    """

    fields: dict[str, Any]
    origin: str

    @property
    def field_names(self) -> str:
        """For messages: a file may call its fields anything."""
        return ", ".join(readable(name) for name in self.fields)


def readable(name: str) -> str:
    """A name from a file, short and without invisible characters."""
    return (name if name.isprintable() else ascii(name))[:60]
