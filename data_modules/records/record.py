"""A record: named fields and the place they were read from."""

from __future__ import annotations

import datetime
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Reject = Callable[[str], None]
"""Takes the located message of a record that cannot be used; raises, or counts it and returns."""


_SHOWN = 40
"""Characters of a value that a message shows."""

_TIMES = (datetime.date, datetime.time, datetime.timedelta)


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


def kind_of(value: Any) -> str:
    """What a value is in the words of JSON, whatever Python calls it: `null`, `a list`, `the number 3`."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, numbers.Number):
        return f"the number {str(value)[:_SHOWN]}"
    if isinstance(value, str):
        return f"the text {value[:_SHOWN]!r}{'...' * (len(value) > _SHOWN)}"
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, (bytes, bytearray)):
        return "binary data"
    if isinstance(value, (list, tuple)):
        return "a list"
    return "a date or time" if isinstance(value, _TIMES) else "neither text nor a number"


def readable(name: str) -> str:
    """A name from a file, short and without invisible characters."""
    return (name if name.isprintable() else ascii(name))[:60]
