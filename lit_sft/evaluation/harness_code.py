"""Finds code in a folder of lm-eval tasks by reading the files, before any of them is loaded."""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from data_modules.errors import UserError

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the loader that lm-eval uses

_PLAIN_TAGS = {
    f"tag:yaml.org,2002:{name}"
    for name in ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge", "value", "binary")
}
_CODE_FIELDS = {
    "class": "names a Python class",
    "custom_dataset": "names a Python function",
    "use_prompt": "loads templates from other files",
}
_SWITCHES = {
    "unsafe_code": "runs what the model writes",
    "trust_remote_code": "runs a data set's own code",
    "hf_evaluate": "downloads and runs a metric",
}
_DATA_FILES = (".json", ".jsonl", ".csv", ".parquet", ".arrow", ".txt", ".gz", ".zst", ".xz", ".md", ".yaml", ".yml")
_CODE_BUILDERS = ("pandas", "generator", "spark", "sql")
# a name with two underscores inside a template's marks
_INTERNALS = re.compile(r"\{[{%](?:(?!\}\}|%\}).)*__", re.DOTALL)


def check_tasks(include: str, allowed: Sequence[str] = (), *, advice: str | None = None) -> None:
    """Refuse a folder of tasks that would run code, unless it is allowed.

    Args:
        include: The folder.
        allowed: Folders whose code may run, given on the command line.
        advice: How to fix it. None: explains `--allow_code`.

    Raises:
        UserError: If it would run code; names the file and line.
    """
    if is_allowed(include, allowed):
        return
    advice = advice or f"Read it, and if you trust it add `--allow_code {include}`."
    read: set[Path] = set()
    waiting = task_files(Path(include))
    while waiting:
        path = waiting.pop()
        if path.resolve() in read:
            continue
        read.add(path.resolve())
        for node, what in _findings(path, waiting):
            raise UserError(f"{path}:{node.start_mark.line + 1}: {what}; tasks may not run their own code. {advice}")


def task_files(folder: Path) -> list[Path]:
    """Every file below a folder that lm-eval may read as a task, including one named just `.yaml`."""
    return [path for path in sorted(folder.rglob("*")) if path.name.endswith((".yaml", ".yml")) and path.is_file()]


def is_allowed(include: str, allowed: Sequence[str]) -> bool:
    """Whether a folder of tasks may run its code."""
    place = Path(include).resolve()
    return any(place.is_relative_to(Path(folder).resolve()) for folder in allowed)


@contextlib.contextmanager
def plain_templates() -> Iterator[None]:
    """Restrict lm-eval's templates to their own record inside this context."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from lm_eval import utils

    before = utils.env
    env = ImmutableSandboxedEnvironment(undefined=before.undefined, keep_trailing_newline=True)
    env.filters = before.filters
    utils.env = env
    try:
        yield
    finally:
        utils.env = before


def _findings(path: Path, waiting: list[Path]) -> Iterator[tuple[yaml.Node, str]]:
    """Find what would run code in a file; files that it includes are added to `waiting`."""
    try:
        root = yaml.compose(path.read_bytes(), _Loader)
    except (yaml.YAMLError, ValueError, RecursionError, OSError):
        return  # lm-eval skips it
    seen: set[int] = set()
    nodes = [root] if root is not None else []
    while nodes:
        node = nodes.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if node.tag not in _PLAIN_TAGS:
            text = str(node.value) if isinstance(node, yaml.ScalarNode) else ""
            yield node, f"`{node.tag.replace('tag:yaml.org,2002:', '!!')} {text}".rstrip() + "` is code"
        if isinstance(node, yaml.ScalarNode) and _INTERNALS.search(node.value):
            yield node, "a template uses Python internals"
        if isinstance(node, yaml.SequenceNode):
            nodes += node.value
        if isinstance(node, yaml.MappingNode):
            nodes += [part for pair in node.value for part in pair]
            for key, value in node.value:
                yield from _field(path, str(key.value), value, waiting)


def _field(path: Path, name: str, value: yaml.Node, waiting: list[Path]) -> Iterator[tuple[yaml.Node, str]]:
    text = value.value if isinstance(value, yaml.ScalarNode) else ""
    if name in _CODE_FIELDS and text not in ("", "null", "~"):
        yield value, f"`{name}` {_CODE_FIELDS[name]}"
    if name in _SWITCHES and text.lower() not in ("", "false", "no", "off", "null", "~"):
        yield value, f"`{name}` {_SWITCHES[name]}"
    if name == "dataset_path" and _brings_code(text):
        yield value, f"`dataset_path` {text!r} contains code, not only data"
    if name == "metric" and text and not _is_known_metric(text):
        yield value, f"the metric {text!r} is not one of lm-eval's: `evaluate` would load its code"
    if name == "include":
        parts = value.value if isinstance(value, yaml.SequenceNode) else [value]
        waiting += [path.parent / str(part.value) for part in parts if isinstance(part, yaml.ScalarNode)]


def _brings_code(text: str) -> bool:
    """Whether a data set path is a script, or a folder with files other than data."""
    place = Path(text)
    if text in _CODE_BUILDERS or place.suffix == ".py":
        return True
    if not text or not place.exists():
        return False
    files = [place] if place.is_file() else [file for file in place.rglob("*") if file.is_file()]
    return any(file.suffix not in _DATA_FILES for file in files)


def _is_known_metric(name: str) -> bool:
    """Whether a metric is one of lm-eval's own; without lm-eval, nothing runs at all."""
    try:
        importlib.import_module("lm_eval.api.metrics")  # which fills the registry
        from lm_eval.api.registry import metric_registry
    except ImportError:
        return True
    return name in metric_registry
