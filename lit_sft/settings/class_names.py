"""Classes that a config may name: the nearest to a misspelt one, and the package that one lacks."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
import sys

_ROOMS = (
    "callbacks",
    "lightning.pytorch.callbacks",
    "lightning.pytorch.loggers",
    "lightning.pytorch.strategies",
    "lightning.pytorch.plugins",
    "lightning.pytorch.profilers",
)
"""Where the classes are that configs name."""


def nearest_class(path: str) -> str | None:
    """The import path of the class whose name is most like a misspelt one; None if none is close.

    Args:
        path: What was given: an import path, or a name alone.
    """
    module, _, name = path.rpartition(".")
    known = {known: f"{room}.{known}" for room in reversed(_ROOMS) for known in _classes(room)}
    known |= {own: f"{module}.{own}" for own in _classes(module, only_imported=True)}
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    return known[close[0]] if close and known[close[0]] != path else None


def _classes(module: str, *, only_imported: bool = False) -> list[str]:
    """Public classes of a module; none if it cannot be imported."""
    try:
        found = sys.modules.get(module) if only_imported else importlib.import_module(module)
    except Exception:  # whatever is wrong with it is not what the user asked
        return []
    return [name for name, value in vars(found).items() if inspect.isclass(value) and name[0] != "_"] if found else []


def missing_package(path: str, reason: str) -> tuple[str, str] | None:
    """The package that a class needs and that is not installed, and what to install.

    Args:
        path: Import path of the class.
        reason: Why it could not be made.
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
