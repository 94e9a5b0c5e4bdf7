"""Values of fields: whether one is given, and reading it as text or as a list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_modules.errors import UserError
from data_modules.wording import kind_of


def is_given(value: Any) -> bool:
    """Whether a field has a value: not null, NaN, blank or empty. False and 0 are values."""
    if value is None or value != value:  # NaN differs from itself
        return False
    if isinstance(value, str):
        return bool(value.strip())
    return not (isinstance(value, (list, tuple, dict)) and not value)


def text(fields: Mapping[str, Any], name: str, *, optional: bool = False, place: str = "") -> str:
    """Read a string.

    Args:
        fields: The fields of a record, of a message or of a part of one.
        name: The field.
        optional: Whether a missing field or null is an empty string.
        place: Where the message or part is, for error messages; empty for a record.

    Raises:
        UserError: If the value is not a string.
    """
    value = fields.get(name)
    if value is None and optional:
        return ""
    if not isinstance(value, str):
        field = f"{place}.{name}" if place else f"field '{name}'"
        raise UserError(f"{field} is {kind_of(value)}; expected a string.")
    return value


def turn_list(fields: Mapping[str, Any], name: str) -> list[Any]:
    """Read a list of turns.

    Raises:
        UserError: If the value is not a list.
    """
    value = fields[name]
    if not isinstance(value, list):
        raise UserError(f"field '{name}' is {kind_of(value)}; expected a list of turns.")
    return value
