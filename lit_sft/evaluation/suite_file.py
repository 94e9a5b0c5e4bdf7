"""Reads a suite from a YAML file and the command line; errors name the setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from data_modules.errors import UserError
from lit_sft.credentials import without_credentials
from lit_sft.evaluation.suite import KINDS, JudgeSettings, Suite
from lit_sft.files import read_yaml
from lit_sft.settings.dataclass_values import check_name, dataclass_from
from lit_sft.settings.sections import nearest
from lit_sft.yaml_loader import load_yaml


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
            kind: {
                str(name): dataclass_from(own, given, place=f"{kind}.{name}")
                for name, given in _named(values, kind).items()
            }
            for kind, own in KINDS.items()
        }
        if "judge" in values:
            made["judge"] = dataclass_from(JudgeSettings, values["judge"], place="judge")
        plain = {name: value for name, value in values.items() if name not in made}
        return dataclass_from(Suite, {"name": Path(path).stem, **plain}, converted=made)
    except UserError as error:
        raise UserError(without_credentials(f"{path}: {error}")) from None


def _named(values: dict[str, Any], kind: str) -> dict[Any, Any]:
    """The sets of a kind."""
    sets = values.get(kind, {})
    if not isinstance(sets, dict):
        raise UserError(f"{kind}: expected names of sets and their settings; got {sets!r}.")
    return sets


def _check_target(name: str, shown: str) -> None:
    """Refuse a misspelt `--set`, so that the message does not blame the file."""
    kind, *rest = name.split(".")
    try:
        check_name(kind, Suite, place="")
        if kind in KINDS and len(rest) > 1:
            check_name(rest[1], KINDS[kind], place=f"{kind}.{rest[0]}")
        if kind == "judge" and rest:
            check_name(rest[0], JudgeSettings, place="judge")
    except UserError as error:
        raise UserError(f"--set {shown}: {error}") from None


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
