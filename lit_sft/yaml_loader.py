"""Strict YAML: unique keys, no tags, no recursion, and a limit on what aliases expand to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from data_modules.errors import UserError
from lit_sft.credentials import without_credentials

Path = tuple[str, ...]
"""Keys from the root of a document; list items are `[]`."""

_MAX_CHARACTERS = 10_000_000
_MAX_DEPTH = 60
_MAX_EXPANDED = 10_000
"""Values that aliases may add to a document."""
_MAX_DIGITS = 300
"""Digits of a number: an integer too large for a float raises OverflowError wherever it is converted."""
_LONG_NUMBER = re.compile(rf"[-+]?(?:0[bBoO])?[0-9_:]{{{_MAX_DIGITS},}}|[-+]?0[xX][0-9a-fA-F_]{{{_MAX_DIGITS},}}")

_TAGS = {None, "!", *(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map"))}

_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(slots=True)
class _Collection:
    """A list or mapping whose end has not been reached."""

    is_mapping: bool
    anchor: str | None
    line: int
    path: Path
    size: int = 1
    key: str | None = None
    keys: dict[str, int] = field(default_factory=dict)

    @property
    def awaits_key(self) -> bool:
        return self.is_mapping and self.key is None

    def child_path(self) -> Path:
        return (*self.path, self.key if self.is_mapping and self.key is not None else "[]")


def check_yaml(text: str) -> dict[Path, int]:
    """Reject YAML that no settings file should contain, before anything is built from it.

    Args:
        text: A YAML document.

    Returns:
        The line of every key, counted from 1.

    Raises:
        yaml.YAMLError: If it is not YAML, or has a duplicate key, a tag, a list or mapping as a key, an alias inside
            the value that it refers to, or excessive aliases or nesting.
    """
    if len(text) > _MAX_CHARACTERS:
        raise RefusedYamlError(problem=f"{len(text):,} characters; expected at most {_MAX_CHARACTERS:,}")
    reader = _Reader()
    for event in yaml.parse(text, Loader=_Parser):
        reader.take(event)
    return reader.lines


class _Reader:
    """Follows the parser's events without building the document, so that huge expansions cost nothing."""

    def __init__(self) -> None:
        self.lines: dict[Path, int] = {}
        self._open: list[_Collection] = []
        self._sizes: dict[str, int] = {}
        self._expanded = 0

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            self._begin(event)
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            closed = self._open.pop()
            self._keep(closed.anchor, closed.size)

    def _scalar(self, event: Any) -> None:
        _check_tag(event)
        if event.implicit[0] and _LONG_NUMBER.fullmatch(event.value):
            raise _error(event, f"a number of more than {_MAX_DIGITS} digits")
        parent = self._open[-1] if self._open else None
        if parent is None or not parent.awaits_key:
            self._keep(event.anchor, 1)
            return
        line = event.start_mark.line + 1
        if (first := parent.keys.get(event.value)) is not None:
            raise _error(event, f"duplicate key {event.value!r} (first on line {first}); remove one of the two")
        parent.keys[event.value], parent.key = line, event.value
        self.lines[parent.child_path()] = line

    def _alias(self, event: Any) -> None:
        if any(collection.anchor == event.anchor for collection in self._open):
            raise _error(event, f"*{event.anchor} refers to a value that contains it")
        if self._open and self._open[-1].awaits_key:
            raise _error(event, f"*{event.anchor} is used as a key; write the key itself")
        size = self._sizes.get(event.anchor, 1)
        self._expanded += size
        if self._expanded > _MAX_EXPANDED:
            raise _error(event, f"aliases expand to more than {_MAX_EXPANDED:,} values")
        self._keep(None, size)

    def _begin(self, event: Any) -> None:
        _check_tag(event)
        parent = self._open[-1] if self._open else None
        if parent is not None and parent.awaits_key:
            raise _error(event, "a list or mapping is used as a key; keys must be strings")
        if len(self._open) == _MAX_DEPTH:
            raise _error(event, f"nested more than {_MAX_DEPTH} levels deep")
        path = parent.child_path() if parent else ()
        is_mapping = isinstance(event, yaml.MappingStartEvent)
        self._open.append(_Collection(is_mapping, event.anchor, event.start_mark.line + 1, path))

    def _keep(self, anchor: str | None, size: int) -> None:
        """Add the size of a complete value to the collection that contains it."""
        if anchor is not None:
            self._sizes[anchor] = size
        if self._open:
            self._open[-1].size += size
            self._open[-1].key = None


def _check_tag(event: Any) -> None:
    if event.tag not in _TAGS:
        raise _error(
            event, f"tag {event.tag.replace('tag:yaml.org,2002:', '!!')}; YAML tags are not allowed in settings"
        )


def _error(event: Any, problem: str) -> RefusedYamlError:
    return RefusedYamlError(problem=problem, problem_mark=event.start_mark)


class RefusedYamlError(yaml.MarkedYAMLError):
    """Valid YAML that no settings file should contain."""


class PlainLoader(_Parser):  # type: ignore[misc]
    """Loads YAML that `check_yaml` has accepted; dates stay text."""


PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _Parser.yaml_implicit_resolvers.items()
}


def load_yaml(text: str, place: str, *, loader: Any = PlainLoader) -> tuple[Any, dict[Path, int]]:
    """Load a YAML document.

    Args:
        text: The document.
        place: Where it comes from; named in error messages.
        loader: Builds the values.

    Returns:
        Its value, and the line of every key.

    Raises:
        UserError: If `check_yaml` rejects it or it cannot be loaded; names the place and the line.
    """
    try:
        lines = check_yaml(text)
        return yaml.load(text, loader), lines
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(yaml_error_line(error, place)) from None


def line_of(setting: str, lines: Mapping[Path, int]) -> int | None:
    """The line of a setting such as `data.mask`, nested or dotted; None if unknown."""
    found = [line for path, line in lines.items() if ".".join(path).replace("+", "") == setting]
    return found[-1] if found else None


def yaml_error_line(error: Exception, place: str) -> str:
    """A YAML error in one line: place, line number, problem."""
    mark = getattr(error, "problem_mark", None)
    at = f"{place}:{mark.line + 1}" if mark else place
    problem = without_credentials(" ".join(str(getattr(error, "problem", None) or error).split()))
    return f"{at}: {problem}." if isinstance(error, RefusedYamlError) else f"{at}: not valid YAML ({problem})."
