"""Finds this project's packages `callbacks` and `data_modules` where a user's own folders have the same names.

Commands always use this project's packages, whatever lies in the folder they are started in. A Python program that
imports lit_sft keeps its own `callbacks`; its own `data_modules` is an error, because lit_sft cannot work without ours.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

HOME = Path(__file__).resolve().parents[1]
"""The folder that holds this project's packages: a checkout, or site-packages."""

NAMES = ("callbacks", "data_modules")


class _OwnPackages:
    """Finds the packages before Python's own finders do.

    Attributes:
        is_command: Whether a command is running, which nothing may shadow.
    """

    is_command = False

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The package of this project; None for every other module."""
        if name not in NAMES:
            return None
        other = None if self.is_command else _package_elsewhere(name)
        if other is None:
            return PathFinder.find_spec(name, [str(HOME)])
        if name == "callbacks":
            return None
        raise ImportError(_collision(name, other))


_FINDER = _OwnPackages()


def install() -> None:
    """From now on, find this project's packages.

    Raises:
        ImportError: If the program has already imported a `data_modules` of its own.
    """
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    loaded = getattr(sys.modules.get("data_modules"), "__file__", None)
    if loaded and Path(loaded).resolve().parents[1] != HOME:
        raise ImportError(_collision("data_modules", Path(loaded).parent))


def claim() -> None:
    """A command is running: nothing shadows the packages, and modules in the working folder can be named in configs."""
    _FINDER.is_command = True
    folder = os.getcwd()
    if not {"", folder} & set(sys.path):  # `lit-sft` does not look there, `python -m lit_sft` does
        sys.path.append(folder)


def program() -> list[str]:
    """How to start a command in another process, in the same folder."""
    is_shadowed = Path("lit_sft.py").exists() or (Path("lit_sft").is_dir() and Path("lit_sft").resolve().parent != HOME)
    return [sys.executable, *(["-P"] if is_shadowed else []), "-m", "lit_sft"]


def shadowed(name: str) -> str:
    """What to say if a module is not found because a folder has the name of one of the packages; empty if not so.

    Args:
        name: Import path of the module, such as `callbacks.Mine`.
    """
    package = name.partition(".")[0]
    if package not in NAMES:
        return ""
    if not _FINDER.is_command:
        other = _package_elsewhere(package)
        return _collision(package, other) if other else ""
    elsewhere = [Path(entry or ".") for entry in sys.path if Path(entry or ".").resolve() != HOME]
    folder = next((entry / package for entry in elsewhere if any((entry / package).glob("*.py"))), None)
    if folder is None:
        return ""
    return (
        f"{package} is a package of lit_sft, so your folder {folder} is not read; rename it, for example to "
        f"my_{package}, here and in the config."
    )


def _package_elsewhere(name: str) -> Path | None:
    """A package that Python would import under that name and that is not ours; it needs an `__init__.py` to count."""
    found = PathFinder.find_spec(name)
    if found is None or found.origin is None:
        return None
    file = Path(found.origin).resolve()
    is_own = (file.parent.parent if file.name == "__init__.py" else file.parent) == HOME
    return None if is_own else file.parent if file.name == "__init__.py" else file


def _collision(name: str, place: Path) -> str:
    return (
        f"lit_sft: Python finds {place} under the name {name}, which is also a package of lit_sft ({HOME / name}). "
        f"Rename yours, or start Python where it is not on the path."
    )
