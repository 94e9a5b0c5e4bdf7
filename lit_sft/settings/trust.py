"""Decides which code a config may run. A run's config may name known classes only; the command line can allow more.

A run folder may come from someone else. So every name in its config.yaml is checked before anything is imported;
jsonargparse rejects other imports while parsing; and each name must be a class that a trainer accepts.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jsonargparse import Namespace, set_parsing_settings
from jsonargparse import _common as jsonargparse_state

from data_modules.errors import UserError
from lit_sft.yaml_loader import Path as Keys
from lit_sft.yaml_loader import load_yaml

OURS = ("lit_sft", "callbacks", "data_modules")
KNOWN = (*OURS, "lightning", "torch", "torchmetrics", "transformers", "peft")
"""Packages that may be imported while a run's config is read."""

NAMED = tuple(package for package in KNOWN if package != "lit_sft")
"""Packages whose classes a run's config may name. Not lit_sft: its classes are internal, and some write files."""

_SLOTS = ("accelerator", "callbacks", "logger", "plugins", "profiler", "strategy")
"""The trainer's settings that take classes."""

_PLAIN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def allowed_code(arguments: Sequence[str]) -> tuple[str, ...]:
    """Import paths allowed by `--run.allow_code` on the command line, separated by commas.

    Raises:
        UserError: If one is not an import path.
    """
    options = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    options.add_argument("--run.allow_code", dest="code", action="append", default=[])
    try:
        given = ",".join(options.parse_known_args(list(arguments))[0].code)
    except argparse.ArgumentError as error:
        raise UserError(str(error)) from None
    paths = tuple(path.strip() for path in given.split(",") if path.strip() not in ("", "null"))
    for path in paths:
        if not _PLAIN.fullmatch(path) or path.partition(".")[0] == "jsonargparse":
            raise UserError(f"--run.allow_code {path}: expected modules or classes, such as my_callbacks.Sampler.")
    return paths


def ignored_class_settings(command: str | None, arguments: Sequence[str]) -> frozenset[str]:
    """The trainer's settings that take classes and that a command does not need from a run's config.

    Args:
        command: A command that builds a trainer. None: no trainer is built.
        arguments: The command line, which may override these settings.
    """
    if command is None:
        return frozenset(_SLOTS)
    given = {argument.partition("=")[0].removeprefix("--trainer.") for argument in arguments}
    unlogged = {"logger"} if command != "fit" else set()
    return frozenset(name for name in _SLOTS if name in given | unlogged)


def own_code(value: Any) -> set[str]:
    """Classes and functions in parsed settings that a run's config may not name.

    Args:
        value: Parsed settings.
    """
    if isinstance(value, (Namespace, dict)):
        parts = vars(value) if isinstance(value, Namespace) else value
        name = parts.get("class_path")
        own = {name} if isinstance(name, str) else set()
        return {name for name in own if not _is_under(name, NAMED)}.union(*map(own_code, parts.values()))
    if isinstance(value, (list, tuple, set)):
        return set().union(*map(own_code, value))
    is_function = callable(value) and not isinstance(value, type)
    return {_path_of(value)} if is_function and not _is_under(_path_of(value), NAMED) else set()


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nest dotted settings: `{"a.b": 1}` becomes `{"a": {"b": 1}}`."""
    values: dict[str, Any] = {}
    for name, value in settings.items():
        *sections, last = str(name).split(".")
        inner: Any = values
        for section in sections:
            inner = inner.setdefault(section, {}) if isinstance(inner, dict) else {}
        if isinstance(inner, dict):
            inner[last] = value
    return values


def refuse_trust(values: Mapping[str, Any], place: str, lines: Mapping[Keys, int] = MappingProxyType({})) -> None:
    """Reject settings that are allowed on the command line only.

    Args:
        values: Settings in sections.
        place: The config's path.
        lines: The line of every key.

    Raises:
        UserError: If a config sets one; says how to set it.
    """
    for name, instead in (
        ("model.backbone.trust_remote_code", "Read the model's code; if you trust it, add"),
        ("run.allow_code", "Add"),
        ("resume", "Add"),
        ("output", "Add"),
    ):
        value: Any = values
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value:
            given = value if isinstance(value, str) else str(value).lower()
            at = f"{place}:{lines[keys]}" if (keys := tuple(name.split("."))) in lines else place
            raise UserError(
                f"{at}: --{name} is allowed on the command line only, not in a config. {instead} `--{name} {given}`."
            )


def checked_run_settings(
    values: Mapping[str, Any], place: str, lines: Mapping[Keys, int], allowed: Sequence[str], unread: Set[str]
) -> dict[str, Any]:
    """Check that a run's config names no unknown code, and return its settings.

    Args:
        values: Settings in sections.
        place: The config's path.
        lines: The line of every key.
        allowed: Import paths from `--run.allow_code`; each includes everything below it.
        unread: The trainer's settings to leave out.

    Raises:
        UserError: If a setting names code that is neither known nor allowed.
    """
    values = _without_trust(values)
    if trainer := values.get("trainer"):
        values["trainer"] = {name: value for name, value in trainer.items() if name.rstrip("+") not in unread}
    for path, name in _names(values, ()):
        at = f"{place}:{lines[path]}" if path in lines else place
        is_file = "." not in name and Path(name).is_file()  # jsonargparse would read the file
        if not _PLAIN.fullmatch(name) or is_file:
            raise UserError(
                f"{at}: {name!r} is not the name of a class; a run's config names classes as `package.Class`."
            )
        if "." in name and not _is_under(name, (*NAMED, *allowed)):
            raise UserError(f"{at}: {_refusal(name)}")
        _check_ours(name, at)
    return values


def is_runs_config(path: Path) -> bool:
    """Whether a config lies in a run folder."""
    return path.name == "config.yaml" and (path.parent / "checkpoints").is_dir()


@contextlib.contextmanager
def known_imports_only(place: str, allowed: Sequence[str]) -> Iterator[None]:
    """While active, jsonargparse imports only known and allowed packages, and reads no config over the network."""
    before, paths = dict(jsonargparse_state.parsing_settings), list(sys.path)
    sys.path[:] = [path for path in paths if path]  # an empty entry would mean the config's folder
    set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=[*KNOWN, *allowed])
    set_parsing_settings(config_read_mode_fsspec_enabled=False)
    try:
        yield
    except (ValueError, TypeError) as error:
        if denied := re.search(r"Importing '([\w.]+)' is not allowed", str(error)):
            raise UserError(f"{place}: {_refusal(denied[1])}") from None
        raise
    finally:
        sys.path[:] = paths
        set_parsing_settings(config_read_mode_fsspec_enabled=True)  # as Lightning sets it
        jsonargparse_state.parsing_settings.clear()
        jsonargparse_state.parsing_settings.update(before)


def check_parts(value: Any, place: str, allowed: Sequence[str]) -> None:
    """Reject functions, and classes that are not part of a trainer, in the parsed settings of a run's config.

    Even a class of a known package may run anything it is given, such as a callback made of functions.

    Raises:
        UserError: If there is one.
    """
    if isinstance(value, (Namespace, dict)):
        parts = vars(value) if isinstance(value, Namespace) else value
        name = parts.get("class_path")
        if isinstance(name, str) and not _is_under(name, allowed) and not _is_part(name):
            raise UserError(f"{place}: {name} is not part of a trainer. {_advice(name)}")
        for part in parts.values():
            check_parts(part, place, allowed)
    elif isinstance(value, (list, tuple, set)):
        for part in value:
            check_parts(part, place, allowed)
    elif callable(value) and not isinstance(value, type) and not _is_under(_path_of(value), allowed):
        raise UserError(f"{place}: names the function {_path_of(value)}. {_advice(_path_of(value))}")


def _path_of(value: Any) -> str:
    """Import path of a function, or of an object's class."""
    kind = value if hasattr(value, "__qualname__") else type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


def _is_part(name: str) -> bool:
    """Whether a class is a kind of trainer component."""
    from lightning.fabric.plugins import ClusterEnvironment
    from lightning.fabric.plugins.io import CheckpointIO
    from lightning.pytorch import Callback
    from lightning.pytorch.accelerators import Accelerator
    from lightning.pytorch.loggers import Logger
    from lightning.pytorch.plugins import LayerSync
    from lightning.pytorch.plugins.precision import Precision
    from lightning.pytorch.profilers import Profiler
    from lightning.pytorch.strategies import Strategy

    kinds = (Callback, Logger, Strategy, Accelerator, Profiler, Precision, ClusterEnvironment, CheckpointIO, LayerSync)
    module, _, last = name.rpartition(".")
    found = getattr(importlib.import_module(module), last, None) if _is_under(module, KNOWN) else None
    # by where it is defined: any module may import an internal class
    return isinstance(found, type) and _is_under(found.__module__, NAMED) and issubclass(found, kinds)


def _names(value: Any, path: Keys) -> Iterator[tuple[Keys, str]]:
    """Every place where settings name a class: each `class_path`, and text in the trainer's class settings."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            here = (*path, key)
            is_slot = len(path) == 1 and path[0] == "trainer" and key.rstrip("+") in _SLOTS
            if isinstance(part, str) and (key == "class_path" or is_slot):
                yield here, part
            elif is_slot and isinstance(part, list):
                yield from ((here, item) for item in part if isinstance(item, str))
            yield from _names(part, here)
    elif isinstance(value, list):
        for part in value:
            yield from _names(part, (*path, "[]"))
    elif isinstance(value, str) and (inner := _loaded(value)) != value:
        yield from _names(inner, path)  # for settings of any type, jsonargparse reads text as YAML


def _loaded(text: str) -> Any:
    try:
        return load_yaml(text, "")[0]
    except ValueError:
        return None


def _is_under(name: str, packages: Sequence[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _refusal(name: str) -> str:
    return (
        f"names {name}, which is not one of this project's callbacks or part of Lightning, torch or transformers. "
        f"{_advice(name)}"
    )


def _advice(name: str) -> str:
    return (
        f"A run's config may not run other code. If you have read and trust it, add `--run.allow_code {name}`; "
        "or do without it (`--trainer.callbacks null`)."
    )


def _check_ours(name: str, at: str) -> None:
    """Reject packages with our names in the folder where the command was started."""
    package = name.partition(".")[0]
    if package not in OURS:
        return
    spec = importlib.util.find_spec(package)
    home = Path(__file__).resolve().parents[2]
    if spec is None or spec.origin is None or Path(spec.origin).resolve().parents[1] != home:
        found = spec.origin if spec else "nowhere"
        raise UserError(f"{at}: {name}: the package {package} comes from {found}, not from this project; move it.")


def _without_trust(values: Mapping[str, Any]) -> dict[str, Any]:
    """Remove permissions to run code, and the run's choice of output file."""
    values = {name: value for name, value in values.items() if name not in ("resume", "output")}
    backbone = (values.get("model") or {}).get("backbone") or {}
    if "trust_remote_code" in backbone:
        values["model"] = {**values["model"], "backbone": {**backbone, "trust_remote_code": False}}
    if "allow_code" in (values.get("run") or {}):
        values["run"] = {**values["run"], "allow_code": None}
    return values
