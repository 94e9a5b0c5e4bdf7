"""Reads fields of JSON objects that may be damaged: a field has the expected type, or an error names it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NoReturn

from data_modules.errors import UserError
from data_modules.wording import kind_of
from lit_sft.files import is_file_name

_LARGEST = 2**63


class Fields:
    """A JSON object, read field by field.

    Args:
        values: The parsed JSON.
        place: Where it came from; named in error messages.

    Raises:
        UserError: If it is not an object. The methods raise it if a field is missing or has another type.
    """

    def __init__(self, values: Any, place: str) -> None:
        if not isinstance(values, Mapping):
            raise UserError(f"{place}: found {kind_of(values)}; expected an object with named fields.")
        self.values, self.place = values, place

    def __contains__(self, name: str) -> bool:
        return self.values.get(name) is not None

    def text(self, name: str) -> str:
        """Read a string."""
        value = self._get(name)
        if not isinstance(value, str):
            self._refuse(name, value, "a string")
        return value

    def texts(self, name: str) -> list[str]:
        """Read a list of strings."""
        values = self._get(name)
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            self._refuse(name, values, "a list of strings")
        return list(values)

    def file_name(self, name: str) -> str:
        """Read the name of a file or folder in the same folder."""
        value = self.text(name)
        self._check_plain(name, value)
        return value

    def file_names(self, name: str) -> list[str]:
        """Read a list of such names."""
        values = self.texts(name)
        for value in values:
            self._check_plain(name, value)
        return values

    def whole(self, name: str) -> int:
        """Read a whole number, at least 0."""
        value = self._get(name)
        if not isinstance(value, int) or not 0 <= value < _LARGEST:
            self._refuse(name, value, "a whole number")
        return value

    def number(self, name: str, *, least: float = -math.inf) -> float:
        """Read a number; null, which stands for values that were not finite, becomes NaN."""
        value = self._get(name)
        if value is None:
            return math.nan
        is_number = isinstance(value, float) or (isinstance(value, int) and abs(value) < _LARGEST)
        if not is_number or value < least:
            self._refuse(name, value, "a number" if least == -math.inf else f"a number, at least {least:g}")
        return float(value)

    def numbers(self, name: str) -> dict[str, float]:
        """Read an object of numbers."""
        part = self.fields(name)
        return {key: part.number(key) for key in part.values}

    def fields(self, name: str) -> Fields:
        """Read a nested object."""
        return Fields(self._get(name), f"{self.place}: {name}")

    def _get(self, name: str) -> Any:
        if name not in self.values:
            raise UserError(f"{self.place}: no field {name!r}.")
        return self.values[name]

    def _check_plain(self, name: str, value: str) -> None:
        if not is_file_name(value):
            self._refuse(name, value, "the name of a file in the same folder")

    def _refuse(self, name: str, value: Any, expected: str) -> NoReturn:
        shown = ascii(value)[:60] if isinstance(value, str) else kind_of(value)
        raise UserError(f"{self.place}: {name} is {shown}; expected {expected}.")
