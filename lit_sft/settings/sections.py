"""Checks the structure of a config: sections are mappings, and keys are known."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Set
from types import MappingProxyType
from typing import Any

from data_modules.errors import UserError
from data_modules.wording import kind_of
from lit_sft.yaml_loader import Path

_FREE = {"$schema"}
"""Keys for editors."""

_MAPPING = "a mapping"


def check_sections(
    values: Any,
    place: str,
    lines: Mapping[Path, int],
    *,
    groups: Set[str],
    options: Set[str],
    refused: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Check a config and return its settings, without empty sections.

    Args:
        values: Content of the config.
        place: Its path, for error messages.
        lines: The line of every key.
        groups: Dotted names of sections, such as `model.backbone`.
        options: Dotted names of settings.
        refused: What to say about settings that belong to another kind of run, by dotted name.

    Raises:
        UserError: If a section is not a mapping or a setting is unknown; names the line.
    """
    if values is None or values == "":
        raise UserError(f"{place}: empty; expected settings, such as `data: {{train: rows.jsonl}}`.")
    if not isinstance(values, dict):
        raise UserError(f"{place}: expected a mapping of settings, found {kind_of(values, _MAPPING)}.")
    return _Checker(place, lines, groups, options, refused).section(values, "", ())


class _Checker:
    def __init__(
        self,
        place: str,
        lines: Mapping[Path, int],
        groups: Set[str],
        options: Set[str],
        refused: Mapping[str, str],
    ) -> None:
        self.place, self.lines, self.groups, self.options = place, lines, groups, options
        self.refused = refused

    def section(self, values: dict[Any, Any], prefix: str, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in values.items():
            here, name = (*path, str(key)), f"{prefix}{key}".removesuffix("+")
            if not isinstance(key, str):
                raise UserError(f"{self._at(here)}: expected the name of a setting, found {kind_of(key)}.")
            if name in self.groups:
                if value is None:
                    continue  # a section whose every line is commented out
                if not isinstance(value, dict):
                    raise UserError(
                        f"{self._at(here)}: --{name}: expected a mapping of settings, found {kind_of(value, _MAPPING)}."
                    )
                value = self.section(value, f"{name}.", here)
            else:
                self._check_known(name, here)
                check_value(value, f"{self._at(here)}: --{name}")
            self._put(found, key.split("."), value, here)
        return found

    def _put(self, found: dict[str, Any], keys: list[str], value: Any, path: Path) -> None:
        """Set a value; `trainer.max_steps: 1` means the same as `trainer: {max_steps: 1}`."""
        *sections, last = keys
        for section in sections:
            found = found.setdefault(section, {})
        if isinstance(value, dict) and isinstance(found.get(last), dict):
            for key, part in value.items():
                self._put(found[last], [key], part, (*path, key))
        elif last in found:
            raise UserError(f"{self._at(path)}: {'.'.join(path)} is set twice; remove one of the two.")
        else:
            found[last] = value

    def _check_known(self, name: str, path: Path) -> None:
        if name in self.refused:
            raise UserError(f"{self._at(path)}: --{name}: {self.refused[name]}")
        if name not in self.options and name not in _FREE:
            advice = nearest(name, self.options) or "see --help for the options"
            raise UserError(f"{self._at(path)}: unknown setting '{name}'; {advice}")

    def _at(self, path: Path) -> str:
        line = self.lines.get(path)
        return f"{self.place}:{line}" if line else self.place


def check_value(value: Any, place: str) -> None:
    """Refuse keys that are not text and malformed class settings, at any depth of a setting.

    Args:
        value: The setting's value.
        place: Where it is, for messages.

    Raises:
        UserError: If there is one.
    """
    if isinstance(value, list):
        for part in value:
            check_value(part, place)
    if not isinstance(value, dict):
        return
    for key, part in value.items():
        if not isinstance(key, str):
            raise UserError(f"{place}: a key is {kind_of(key)}; put it in quotes.")
        if key == "class_path" and not isinstance(part, str):
            raise UserError(f"{place}: class_path: expected a name such as callbacks.RunHealth, found {kind_of(part)}.")
        if key in ("init_args", "dict_kwargs") and not isinstance(part, (dict, type(None))):
            raise UserError(f"{place}: {key}: expected a mapping of settings, found {kind_of(part, _MAPPING)}.")
        check_value(part, place)


def nearest(name: str, options: Set[str], sign: str = "") -> str:
    """`did you mean ...?` for a misspelt option; empty if none is close.

    Args:
        name: The option as given, without `--`.
        options: All options.
        sign: Prefix to show, such as `--`.
    """
    parent, _, last = name.rpartition(".")
    siblings = {option.rpartition(".")[2]: option for option in options if option.rpartition(".")[0] == parent}
    close = [siblings[found] for found in difflib.get_close_matches(last, siblings, n=3, cutoff=0.6)]
    close = close or difflib.get_close_matches(name, sorted(options), n=3, cutoff=0.6)
    close = close or [option for option in sorted(options) if option.endswith(f".{last}")][:3]
    return f"did you mean {' or '.join(f'{sign}{each}' for each in close)}?" if close else ""
