"""Configuration of the documentation site: `make docs` builds docs/ with Sphinx, without network."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from importlib.metadata import version as version_of
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))  # documents the checkout, wherever the package is installed from

project = "lit_sft"
author = "lit_sft"
release = version_of("lit_sft")
copyright = "the lit_sft contributors, Apache-2.0"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["pictures", "_build"]
html_theme = "furo"
html_title = "lit_sft"

myst_heading_anchors = 3
default_role = "literal"  # docstrings are Markdown in this: single backticks are code

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_inherit_docstrings = False  # those of Lightning are in its own documentation
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes of a dataclass are described once, in its docstring

PACKAGES = ("data_modules", "lit_sft", "callbacks")


def write_api(folder: Path) -> None:
    """Write a page for each room of the code, with the docstrings of its modules, and an index of the pages.

    Args:
        folder: Of the pages; what an earlier build wrote there is replaced.
    """
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.md"):
        old.unlink()
    rooms = [room for package in PACKAGES for room in _rooms(ROOT / package)]
    for room in rooms:
        (folder / f"{_name(room)}.md").write_text(_page(room), encoding="utf-8")
    names = "\n".join(map(_name, rooms))
    index = f"# API\n\nOne page for each room of the code.\n\n```{{toctree}}\n:maxdepth: 1\n\n{names}\n```\n"
    (folder / "index.md").write_text(index, encoding="utf-8")


def _rooms(package: Path) -> Iterator[Path]:
    """A package and the packages below it."""
    return (init.parent for init in sorted(package.rglob("__init__.py")))


def _page(room: Path) -> str:
    purpose = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8"))) or ""
    modules = [file for file in sorted(room.glob("*.py")) if file.name != "__init__.py"]
    parts = [f"## {file.stem}\n\n```{{eval-rst}}\n.. automodule:: {_name(file)}\n```\n" for file in modules]
    return "\n".join([f"# {_name(room)}\n", f"{purpose}\n", *parts])


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


write_api(HERE / "api")
