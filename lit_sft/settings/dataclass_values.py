"""Makes dataclasses of settings from the values of a YAML file, with types checked."""

from __future__ import annotations

from argparse import ArgumentError
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from types import MappingProxyType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentParser

from data_modules.errors import UserError
from data_modules.wording import either
from lit_sft.settings.sections import nearest

_Made = TypeVar("_Made")

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a string", type(None): "null"}
_PLURALS = {int: "whole numbers", float: "numbers", str: "strings"}


def dataclass_from(
    kind: type[_Made],
    values: Any,
    *,
    place: str = "",
    converted: Mapping[str, Any] = MappingProxyType({}),
) -> _Made:
    """Make a dataclass of settings.

    Args:
        kind: The dataclass.
        values: Names to values, as a YAML file has them.
        place: Dotted name of the settings in the file; empty for those of the file itself.
        converted: Values that need no conversion. Settings of any type belong here: text such as "1e-4" would become
            a number.

    Raises:
        UserError: If a name is unknown or missing, or a value has the wrong type; names the setting. Errors of the
            dataclass itself start with the name of a field, which `place` is put in front of.
    """
    if not isinstance(values, dict):
        raise UserError(f"{f'{place}: ' if place else ''}expected names and values; got {values!r}.")
    for name in values:
        check_name(str(name), kind, place=place)
    prefix = f"{place}." if place else ""
    if missing := [name for name in _required(kind) if name not in values and name not in converted]:
        raise UserError(f"{prefix}{missing[0]}: missing; expected a value.")
    types = get_type_hints(kind)
    typed = {name: _typed(value, types[name], f"{prefix}{name}") for name, value in values.items()}
    try:
        return kind(**typed, **converted)
    except UserError as error:
        raise UserError(f"{prefix}{error}") from None


def check_name(name: str, kind: Any, *, place: str) -> None:
    """Refuse a setting that a dataclass does not have.

    Args:
        name: The setting.
        kind: The dataclass.
        place: Dotted name of its settings; may be empty.
    """
    known = [each.name for each in fields(kind)]
    if name in known:
        return
    prefix = f"{place}." if place else ""
    advice = nearest(name, set(known), sign=prefix) or f"the settings are {', '.join(known)}."
    raise UserError(f"unknown setting {prefix}{name}; {advice}")


def _required(kind: Any) -> Iterable[str]:
    return (each.name for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING)


def _typed(value: Any, kind: Any, name: str) -> Any:
    # the parser takes null for every setting, and names of any type
    is_odd = isinstance(value, dict) and get_origin(kind) is dict and not all(isinstance(key, str) for key in value)
    if is_odd or (value is None and kind is not Any and type(None) not in get_args(kind)):
        raise UserError(f"{name} {_shown(value)}: expected {_type_in_words(kind)}.")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=kind)
    try:
        return parser.parse_object({"value": value}).value
    except (ArgumentError, OverflowError):  # an integer may be too large for a float
        raise UserError(f"{name} {_shown(value)}: expected {_type_in_words(kind)}.") from None


def _shown(value: Any) -> str:
    return "null" if value is None else repr(value)


def _type_in_words(kind: Any) -> str:
    """A type for error messages, such as `a whole number or null`."""
    if get_origin(kind) in (Union, UnionType):
        return either(map(_type_in_words, get_args(kind)))
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(repr, get_args(kind)))}"
    if get_origin(kind) is dict:
        return "names and values"
    if get_origin(kind) in (list, tuple):
        element = get_args(kind)[0]
        return f"a list of {_PLURALS.get(element) or _type_in_words(element).replace('a list', 'lists')}"
    return _WORDS.get(kind, str(kind))
