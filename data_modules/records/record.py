"""A record: named fields, and where they were read from."""

from __future__ import annotations

import datetime
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Reject = Callable[[str], None]
"""Called with the message for an unusable record, including its place; either raises it or counts the record."""


_SHOWN = 40
"""Most characters of a value shown in a message."""

_TIMES = (datetime.date, datetime.time, datetime.timedelta)


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a file.

    Attributes:
        fields: Values by field name.
        origin: `file:line` (`file:row N` for parquet, `name:N` for a hub dataset), counted from 1.
    """

    fields: dict[str, Any]
    origin: str

    @property
    def field_names(self) -> str:
        """The field names, made printable for messages."""
        return ", ".join(readable(name) for name in self.fields)


def kind_of(value: Any) -> str:
    """Describe a value in JSON's terms rather than Python's: `null`, `a list`, `the number 3`."""
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
    """A name from a file, shortened and made printable."""
    return (name if name.isprintable() else ascii(name))[:60]
