"""Downloads packages from PyPI and finds chat templates in them. Nothing of them is run."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

_SOURCE_ONLY = ("llama-cpp-python",)
"""Packages whose wheels lack the templates; downloading their source does not compile it."""


def templates_of(package: str, folder: Path) -> dict[str, str]:
    """The chat templates in a package, by name.

    Args:
        package: Its name and version, as for pip.
        folder: For the download.
    """
    (archive,) = _downloaded(package, folder)
    found: dict[str, str] = {}
    for path, text in _texts(archive):
        if path.suffix == ".jinja":
            found[path.stem] = text
        elif path.name == "llm_family.json":
            models = json.loads(text)
            found |= {model["model_name"]: model["chat_template"] for model in models if model.get("chat_template")}
        else:
            found |= _assigned(text)
    return found


def _downloaded(package: str, folder: Path) -> list[Path]:
    place = folder / package
    if not place.exists():
        name = package.partition("==")[0]
        kind = ["--no-binary", name] if name in _SOURCE_ONLY else ["--only-binary", name]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *kind, package, "--dest"]
        partial = folder / f"{package}.partial"
        subprocess.run([*command, str(partial)], check=True)
        partial.rename(place)
    return list(place.iterdir())


def _texts(archive: Path) -> Iterator[tuple[PurePosixPath, str]]:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for name in filter(_is_wanted, wheel.namelist()):
                yield PurePosixPath(name), wheel.read(name).decode()
        return
    with tarfile.open(archive) as source:
        for member in source:
            if member.isfile() and _is_wanted(member.name):
                file = source.extractfile(member)
                assert file is not None
                yield PurePosixPath(member.name), file.read().decode()


def _is_wanted(name: str) -> bool:
    return name.endswith((".jinja", "model/llm/llm_family.json", "unsloth/chat_templates.py"))


def _assigned(module: str) -> dict[str, str]:
    """Texts assigned to names that end with `_template` at the top of a module."""
    found = {}
    for node in ast.parse(module).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            text = _text(node.value)
            if node.targets[0].id.endswith("_template") and text is not None:
                found[node.targets[0].id] = text
    return found


def _text(node: Any) -> str | None:
    """A text, or the sum of several."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _text(node.left), _text(node.right)
        return None if left is None or right is None else left + right
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
