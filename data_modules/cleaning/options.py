"""Options of rules: fields of a dataclass with their help, read from YAML values and checked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, field, fields
from typing import Any

from data_modules.errors import UserError
from data_modules.wording import counted, did_you_mean, either, kind_of

_WORDS: dict[type, str] = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def option(
    help: str,
    kind: type,
    default: Any = MISSING,
    *,
    choices: tuple[str, ...] = (),
    least: float | None = None,
    most: float | None = None,
    many: int = 0,
) -> Any:
    """An option of a rule: a field of its dataclass.

    Args:
        help: One sentence for the docs.
        kind: Type of its value, or of each of its values if it is a list.
        default: Its default; without one it is required. Lists are given as tuples.
        choices: The words it may be.
        least: Smallest value of a number.
        most: Largest value of a number.
        many: For a list, its length; -1: any length but 0. 0: not a list.
    """
    allowed = {"help": help, "kind": kind, "choices": choices, "least": least, "most": most, "many": many}
    return field(default=default, metadata=allowed)


def read_options(rule: type, values: Any, place: str) -> dict[str, Any]:
    """Check the options of a rule.

    Args:
        rule: The rule's dataclass.
        values: What the user wrote: a mapping, or None for the defaults.
        place: The option as the user would type it, with the rule's name.

    Returns:
        Keyword arguments of the rule; lists as tuples.

    Raises:
        UserError: If an option is unknown, missing, of the wrong type or out of range.
    """
    known = {each.name: each for each in fields(rule)}
    if values is not None and not isinstance(values, Mapping):
        form = f"{{{place.rpartition(' ')[2]}: {{{next(iter(known))}: ...}}}}" if known else "no options"
        raise UserError(f"{place} is {kind_of(values, 'a mapping')}; expected {form}.")
    given = dict(values or {})
    for name in given:
        if name not in known:
            hint = did_you_mean(str(name), known)
            names = f"expected {either(known)}" if known else "the rule has no options"
            raise UserError(f"{place}: unknown option '{name}'; {names}{f'; {hint}' if hint else '.'}")
    missing = [name for name, each in known.items() if each.default is MISSING and name not in given]
    if missing:
        raise UserError(f"{place}: no '{missing[0]}': {known[missing[0]].metadata['help']}")
    return {name: _checked(known[name], value, f"{place}.{name}") for name, value in given.items()}


def _checked(known: Field[Any], value: Any, place: str) -> Any:
    many = known.metadata["many"]
    if not many:
        return _one(known, value, place)
    if not isinstance(value, (list, tuple)) or not value or len(value) not in (many, len(value) * (many < 0)):
        expected = "a list with at least one value" if many < 0 else f"a list of {many} values"
        is_list = isinstance(value, (list, tuple))
        found = f"has {counted(len(value), 'value')}" if is_list else f"is {kind_of(value, 'a mapping')}"
        raise UserError(f"{place} {found}; expected {expected}. {known.metadata['help']}")
    return tuple(_one(known, each, place) for each in value)


def _one(known: Field[Any], value: Any, place: str) -> Any:
    about = known.metadata
    kinds = (int, float) if about["kind"] is float else (about["kind"],)
    if not isinstance(value, kinds) or (isinstance(value, bool) and about["kind"] is not bool):
        raise UserError(f"{place} is {kind_of(value, 'a mapping')}; expected {_WORDS[about['kind']]}.")
    if about["choices"] and value not in about["choices"]:
        hint = did_you_mean(str(value), about["choices"])
        raise UserError(f"{place} is '{value}'; expected {either(about['choices'])}{f'; {hint}' if hint else '.'}")
    least, most = about["least"], about["most"]
    if not isinstance(value, str) and not ((least is None or value >= least) and (most is None or value <= most)):
        limits = f"from {least} to {most}" if most is not None else f"of at least {least}"
        raise UserError(f"{place} is {value}; expected {_WORDS[about['kind']]} {limits}.")
    return about["kind"](value)


def check_patterns(patterns: Iterable[str]) -> None:
    """Refuse what is not a regular expression.

    Raises:
        UserError: If the option `patterns` has such an item.
    """
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"patterns: '{pattern}' is not a regular expression: {error}.") from None


def read_rule(item: Any, at: str, place: str, known: Mapping[str, Callable[..., Any]], example: str) -> tuple[str, Any]:
    """Read an item of a list of rules: a rule's name, or a mapping of one name to its options.

    Args:
        item: The item as read from YAML.
        at: The item's place, such as `--data.cleaning[2]`.
        place: The option as the user would type it.
        known: The dataclass of each rule, by name.
        example: A name with its options, for error messages.

    Returns:
        The name and the rule.

    Raises:
        UserError: If the rule or one of its options is unknown, or a value is impossible.
    """
    if isinstance(item, str):
        name, options = item, None
    elif isinstance(item, Mapping) and len(item) == 1 and isinstance(next(iter(item)), str):
        name, options = next(iter(item.items()))
    else:
        found = "several rules" if isinstance(item, Mapping) and len(item) > 1 else kind_of(item, "a mapping")
        raise UserError(f"{at} is {found}; expected a rule's name, or its name and options: {example}.")
    if name not in known:
        hint = did_you_mean(name, known) or f"expected some of {', '.join(known)}."
        raise UserError(f"{at}: unknown rule '{name}'; {hint}")
    kind: Any = known[name]
    try:
        return name, kind(**read_options(kind, options, f"{place} {name}"))
    except UserError as error:
        message = str(error)
        raise UserError(message if message.startswith(place) else f"{place} {name}: {message}") from None


def help_of(rule: type) -> list[tuple[str, str, str]]:
    """Name, default and help of each option of a rule, for the docs."""
    return [
        (each.name, "required" if each.default is MISSING else _shown(each.default), each.metadata["help"])
        for each in fields(rule)
    ]


def _shown(default: Any) -> str:
    return f"[{', '.join(map(str, default))}]" if isinstance(default, tuple) else str(default)
