"""The body of a request, read field by field: each has its type and range, or an error names it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from data_modules.wording import did_you_mean
from lit_sft.serve.errors import ApiError, invalid

_WHOLE_LIMIT = 2**63


def parse_body(raw: bytes) -> Body:
    """Parse the JSON of a request.

    Raises:
        ApiError: If it is not a JSON object.
    """
    try:
        values = json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise invalid(None, "The body of the request is not valid JSON; expected an object in UTF-8.") from None
    if not isinstance(values, dict):
        raise invalid(None, f"The body of the request is {_kind(values)}; expected an object.", "invalid_type")
    return Body(values)


class Body:
    """A JSON object. A field that is null counts as absent, as in the API.

    Args:
        values: The parsed JSON.
        place: What the names of its fields begin with in errors, such as `messages[0].`.
    """

    def __init__(self, values: Mapping[str, Any], place: str = "") -> None:
        self._values, self._place = values, place

    def get(self, name: str) -> Any:
        """A value as it is; None if it is absent."""
        return self._values.get(name)

    def required(self, name: str) -> Any:
        """A value as it is.

        Raises:
            ApiError: If it is absent.
        """
        value = self._values.get(name)
        if value is None:
            shown = self._place + name
            raise invalid(shown, f"Missing required parameter: '{shown}'.", "missing_required_parameter")
        return value

    def text(self, name: str) -> str:
        """A required string.

        Raises:
            ApiError: If it is absent, another type, or not valid Unicode.
        """
        value = self.required(name)
        if not isinstance(value, str):
            self.wrong_type(name, "a string")
        return self.unicode(name, value)

    def unicode(self, name: str, value: str) -> str:
        """A string, unless it has lone surrogates, which JSON can express and no tokenizer can read.

        Raises:
            ApiError: If it has.
        """
        try:
            value.encode()
        except UnicodeEncodeError:
            shown = self._place + name
            raise invalid(shown, f"Invalid '{shown}': it is not valid Unicode.", "invalid_value") from None
        return value

    def flag(self, name: str) -> bool:
        """True or false; false if absent.

        Raises:
            ApiError: If it is another type.
        """
        value = self._values.get(name)
        if value is not None and not isinstance(value, bool):
            self.wrong_type(name, "a boolean")
        return bool(value)

    def number(self, name: str, default: float, *, least: float, most: float) -> float:
        """A number in a range.

        Raises:
            ApiError: If it is another type, or out of range.
        """
        value = self._values.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.wrong_type(name, "a decimal")
        self._check_range(name, value, least, most, "decimal")
        return float(value)

    def whole(self, name: str, *, least: int = 1 - _WHOLE_LIMIT, most: int = _WHOLE_LIMIT - 1) -> int | None:
        """A whole number in a range; None if absent.

        Raises:
            ApiError: If it is another type, or out of range.
        """
        value = self._values.get(name)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            self.wrong_type(name, "an integer")
        self._check_range(name, value, least, most, "integer")
        return int(value)

    def wrong_type(self, name: str, expected: str) -> NoReturn:
        """Refuse a field of another type.

        Raises:
            ApiError: Always.
        """
        shown = self._place + name
        raise invalid(
            shown,
            f"Invalid type for '{shown}': expected {expected}, but got {_kind(self._values.get(name))} instead.",
            "invalid_type",
        )

    def check_length(self, name: str, values: Sequence[Any], most: int) -> None:
        """Refuse an array that is too long.

        Raises:
            ApiError: If it is.
        """
        if len(values) > most:
            shown = self._place + name
            raise invalid(
                shown,
                f"Invalid '{shown}': array too long. Expected an array with maximum length {most}, but got an array "
                f"with length {len(values)} instead.",
                "array_above_max_length",
            )

    def refuse_unknown(self, known: Iterable[str]) -> None:
        """Refuse fields that nobody reads: a setting is never ignored.

        Raises:
            ApiError: If there is one.
        """
        known = set(known)
        for name in self._values:
            if name not in known:
                shown = f"{self._place}{name[:60]!a}".replace("'", "")
                advice = did_you_mean(name[:60], known)
                raise invalid(
                    shown, f"Unknown parameter: '{shown}'.{f' D{advice[1:]}' if advice else ''}", "unknown_parameter"
                )

    def _check_range(self, name: str, value: float, least: float, most: float, kind: str) -> None:
        if least <= value <= most:
            return
        shown = self._place + name
        side, sign, limit = ("above max", "<=", most) if value > most else ("below min", ">=", least)
        raise invalid(
            shown,
            f"Invalid '{shown}': {kind} {side}imum value. Expected a value {sign} {limit}, but got {value!s:.40} "
            "instead.",
            f"{kind}_{side.replace(' ', '_')}_value",
        )


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and Infinity, which are not JSON


def _kind(value: Any) -> str:
    """The type of a JSON value, in the API's words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    names = {str: "a string", int: "an integer", float: "a decimal", list: "an array", dict: "an object"}
    return names[type(value)]


def too_large(limit: int) -> ApiError:
    """The body is too long to be read."""
    return ApiError(413, f"The body of the request is too large; expected at most {limit:,} bytes.")
