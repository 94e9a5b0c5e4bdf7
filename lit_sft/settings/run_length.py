"""The length of a run: in epochs or steps, whichever was set last."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lit_sft.settings.trust import nested
from lit_sft.yaml_loader import PlainLoader

USUAL_EPOCHS = 3
"""Epochs of a run whose length is not set."""

_OPTIONS = {"--trainer.max_epochs": "max_epochs", "--trainer.max_steps": "max_steps"}
_NO_LIMIT = (None, -1)


@dataclass(frozen=True, slots=True)
class RunLength:
    """Limits of a run; -1 means no limit.

    Attributes:
        max_epochs: Maximum number of epochs.
        max_steps: Maximum number of optimiser steps.
        unused: Limits in a config file that are overridden, as text.
    """

    max_epochs: int
    max_steps: int
    unused: str = ""


def run_length(max_epochs: int | None, max_steps: int, arguments: list[str]) -> RunLength:
    """The limits that apply: those of the last source that sets one, a config file or the command line.

    A source that sets one limit removes the other, so `--trainer.max_steps 60` trains for 60 steps whatever the
    `max_epochs` of a config file or the default. If a source sets both, both apply.

    Args:
        max_epochs: As parsed, or its default.
        max_steps: As parsed, or its default.
        arguments: Options of a command, in order.
    """
    active: set[str] = set()
    set_by: dict[str, str] = {}
    overridden: dict[str, str] = {}
    for source, values in _given(arguments):
        limits = {name for name, value in values.items() if value not in _NO_LIMIT}
        if limits:
            overridden = {name: set_by[name] for name in active - values.keys()}
            active = limits
        else:
            active = active - values.keys()
        set_by |= dict.fromkeys(values, source)
    if not active and "max_epochs" not in set_by:
        return RunLength(USUAL_EPOCHS, max_steps)
    unused = ", ".join(f"{name} of {source}" for name, source in sorted(overridden.items()))
    return RunLength(
        max_epochs if "max_epochs" in active and max_epochs is not None else -1,
        max_steps if "max_steps" in active else -1,
        unused,
    )


def _given(arguments: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """The sources that set limits, in order, with their values. All command-line options are one source."""
    found: list[tuple[str, dict[str, Any]]] = []
    typed: dict[str, Any] = {}
    for index, argument in enumerate(arguments):
        option, is_joined, value = argument.partition("=")
        value = value if is_joined else arguments[index + 1] if index + 1 < len(arguments) else ""
        if option == "--config":
            found.append((value, _limits(nested(_mapping(value)).get("trainer"))))
        elif option in _OPTIONS or option == "--trainer":
            typed |= {_OPTIONS[option]: _parsed(value)} if option in _OPTIONS else _limits(_mapping(value))
            found = [*(source for source in found if source[1] is not typed), ("the command line", typed)]
    return [source for source in found if source[1]]


def _limits(values: Any) -> dict[str, Any]:
    return {name: values[name] for name in _OPTIONS.values() if name in values} if isinstance(values, dict) else {}


def _mapping(text: str) -> dict[str, Any]:
    """The mapping in a YAML file, or in YAML typed as an option; the parser has already accepted it."""
    try:
        value = _parsed(Path(text).read_text(encoding="utf-8")) if Path(text).is_file() else _parsed(text)
    except OSError:  # too long to be a path
        value = _parsed(text)
    return value if isinstance(value, dict) else {}


def _parsed(text: str) -> Any:
    try:
        return yaml.load(text, PlainLoader)  # as the parser reads it: dates stay text
    except yaml.YAMLError:
        return None
