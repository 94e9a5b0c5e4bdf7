"""Help with class names in configs: the closest match to a misspelt one, and packages that are not installed."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
import sys

_MODULES = (
    "callbacks",
    "lightning.pytorch.callbacks",
    "lightning.pytorch.loggers",
    "lightning.pytorch.strategies",
    "lightning.pytorch.plugins",
    "lightning.pytorch.profilers",
)
"""Modules whose classes configs usually name."""


def nearest_class(path: str) -> str | None:
    """The import path of the class closest to a misspelt one; None if none is close.

    Args:
        path: An import path, or just a name.
    """
    module, _, name = path.rpartition(".")
    known = {known: f"{module}.{known}" for module in reversed(_MODULES) for known in _classes(module)}
    known |= {own: f"{module}.{own}" for own in _classes(module, only_imported=True)}
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    return known[close[0]] if close and known[close[0]] != path else None


def _classes(module: str, *, only_imported: bool = False) -> list[str]:
    """Public classes of a module; none if it cannot be imported."""
    try:
        found = sys.modules.get(module) if only_imported else importlib.import_module(module)
    except Exception:  # its errors are not what the user asked about
        return []
    return [name for name, value in vars(found).items() if inspect.isclass(value) and name[0] != "_"] if found else []


def missing_package(path: str, reason: str) -> tuple[str, str] | None:
    """The missing package that a class needs, and what to install; None if that is not the problem.

    Args:
        path: Import path of the class.
        reason: Why the class could not be created.
    """
    if needed := re.search(r"Requirement '([^']+)' not met|pip install (?:-U )?[`'\"]?([\w.\[\]-]+)", reason):
        requirement = needed[1] or needed[2]
    elif (needed := re.search(r"No module named '([\w.]+)'", reason)) and not f"{path}.".startswith(f"{needed[1]}."):
        requirement = needed[1].partition(".")[0]
    else:
        return None
    name = re.match(r"[\w.-]+", requirement)
    is_plain = re.fullmatch(r"[\w.-]+", requirement)
    return (name[0] if name else requirement), requirement if is_plain else f"'{requirement}'"
