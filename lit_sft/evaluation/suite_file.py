"""Reads a suite from a YAML file and the command line; errors name the setting."""

from __future__ import annotations

from argparse import ArgumentError
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentParser

from data_modules.errors import UserError
from lit_sft.credentials import without_credentials
from lit_sft.evaluation.suite import KINDS, JudgeSettings, Suite
from lit_sft.files import read_yaml
from lit_sft.settings.sections import nearest
from lit_sft.yaml_loader import load_yaml

_Made = TypeVar("_Made")

_WORDS = {int: "a whole number", float: "a number", str: "text", type(None): "null"}


def read_suite(path: str, changes: Sequence[str] = ()) -> Suite:
    """Read a suite from a YAML file.

    Args:
        path: The file.
        changes: Settings that override those of the file, such as `answers.mine.data=rows.json`.

    Raises:
        UserError: If the file, a name or a value is wrong; names the file.
    """
    values = read_yaml(path, advice="Suites are in configs/evaluate/.", usual=Path("configs/evaluate"))
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected names and values, such as `choices: {{general: {{}}}}`.")
    written = {kind: list(map(str, sets)) for kind in KINDS if isinstance(sets := values.get(kind), dict)}
    for change in changes:
        _set(values, change)
    for change in changes:
        _check_new_set(values, change, written)
    values = {name: value for name, value in values.items() if value is not None}
    try:
        made: dict[str, Any] = {
            kind: {str(name): _made(own, f"{kind}.{name}", given) for name, given in _named(values, kind).items()}
            for kind, own in KINDS.items()
        }
        if "judge" in values:
            made["judge"] = _made(JudgeSettings, "judge", values["judge"])
        plain = {name: value for name, value in values.items() if name not in made}
        return _made(Suite, "", {"name": Path(path).stem, **plain}, made)
    except (ValueError, TypeError) as error:
        raise UserError(without_credentials(f"{path}: {error}")) from None


def _named(values: dict[str, Any], kind: str) -> dict[Any, Any]:
    """The sets of a kind."""
    sets = values.get(kind, {})
    if not isinstance(sets, dict):
        raise UserError(f"{kind}: expected names of sets and their settings; got {sets!r}.")
    return sets


def _made(kind: type[_Made], place: str, values: Any, made: Mapping[str, Any] = MappingProxyType({})) -> _Made:
    """Make a dataclass of settings from the values of a file, with types checked.

    Args:
        kind: The dataclass.
        place: Dotted name of its settings in the file.
        values: Names to values.
        made: Values that need no conversion.
    """
    if not isinstance(values, dict):
        raise UserError(f"{place}: expected names and values; got {values!r}.")
    types = get_type_hints(kind)
    known = {f.name: f.default is MISSING and f.default_factory is MISSING for f in fields(kind)}  # type: ignore[arg-type]
    prefix = f"{place}." if place else ""
    if unknown := [str(name) for name in values if name not in known]:
        raise UserError(_no_setting(unknown[0], prefix, known))
    if lacking := [name for name, is_required in known.items() if is_required and name not in values]:
        raise UserError(f"{prefix}{lacking[0]}: missing; expected a value.")
    checked: dict[str, Any] = {}
    for name, value in values.items():
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument("--value", type=types[name])
        try:
            checked[name] = parser.parse_object({"value": value}).value
        except (ArgumentError, OverflowError):  # an integer may be too large for a float
            raise UserError(f"{prefix}{name} {value!r}: expected {_type_in_words(types[name])}.") from None
    try:
        return kind(**checked, **made)
    except ValueError as error:
        raise UserError(f"{place}: {error}" if place else str(error)) from None


def _no_setting(name: str, prefix: str, known: Iterable[str]) -> str:
    """Message for an unknown setting."""
    names = list(known)
    listed = f"{prefix.removesuffix('.') or 'a suite'} has {', '.join(names)}."
    return f"no setting {prefix}{name}; {nearest(name, set(names), sign=prefix) or listed}"


def _check_target(name: str, shown: str) -> None:
    """Refuse a misspelt `--set`, so that the message does not blame the file."""
    kind, *rest = name.split(".")
    _check_key(kind, "", Suite, shown)
    if kind in KINDS and len(rest) > 1:
        _check_key(rest[1], f"{kind}.{rest[0]}.", KINDS[kind], shown)
    if kind == "judge" and rest:
        _check_key(rest[0], "judge.", JudgeSettings, shown)


def _check_key(key: str, prefix: str, owner: Any, shown: str) -> None:
    known = [each.name for each in fields(owner)]
    if key not in known:
        raise UserError(f"--set {shown}: {_no_setting(key, prefix, known)}")


def _check_new_set(values: dict[str, Any], change: str, written: Mapping[str, Sequence[str]]) -> None:
    """Refuse a set that `--set` created by a misspelt name: a new set needs data."""
    kind, *rest = change.partition("=")[0].removeprefix("--").split(".")
    if kind not in KINDS or len(rest) < 2 or rest[0] in written.get(kind, ()):
        return
    needed, sets = fields(KINDS[kind])[0].name, values.get(kind)
    made = sets.get(rest[0]) if isinstance(sets, dict) else None  # a later change may have replaced either
    if isinstance(made, dict) and needed not in made:
        advice = nearest(rest[0], set(written.get(kind, ())), sign=f"{kind}.")
        raise UserError(
            f"--set {without_credentials(change)}: the suite has no set {kind}.{rest[0]}; "
            f"{advice or f'a new one needs {kind}.{rest[0]}.{needed}.'}"
        )


def _type_in_words(kind: Any) -> str:
    """A type for error messages, such as `a whole number or null`."""
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(map(_type_in_words, get_args(kind)))
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(repr, get_args(kind)))}"
    if get_origin(kind) in (list, tuple):
        return f"a list of {_type_in_words(get_args(kind)[0])}"
    return _WORDS.get(kind, str(kind))


def _set(values: dict[str, Any], change: str) -> None:
    shown = without_credentials(change)
    name, is_given, value = change.partition("=")
    *parents, last = name.removeprefix("--").split(".")
    if not is_given or not last:
        raise UserError(f"--set {shown}: expected NAME=VALUE, such as answers.mine.data=rows.json.")
    _check_target(name.removeprefix("--"), shown)
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise UserError(f"--set {shown}: {parent} is a value and has no settings of its own.")
    values[last] = load_yaml(value, f"--set {shown}")[0]
