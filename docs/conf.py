"""Configuration of the documentation site: `make docs` builds docs/ with Sphinx, without network access."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from importlib.metadata import version as version_of
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))  # document this checkout, not an installed copy

project = "lit_sft"
author = "lit_sft"
release = version_of("lit_sft")
copyright = "the lit_sft contributors, Apache-2.0"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["pictures", "_build"]
html_theme = "furo"
html_title = "lit_sft"

myst_heading_anchors = 3
default_role = "literal"  # docstrings use single backticks for code, as in Markdown

autodoc_mock_imports = ["gradio"]  # large, and only the page of `arena` needs it
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_inherit_docstrings = False  # inherited docstrings belong to Lightning's own documentation
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes of a dataclass are described once, in its docstring

PACKAGES = ("data_modules", "lit_sft", "callbacks")


def write_api(folder: Path) -> None:
    """Write an API page for each subpackage, with the docstrings of its modules, and an index.

    Args:
        folder: Output folder; pages from an earlier build are replaced.
    """
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.md"):
        old.unlink()
    packages = [each for package in PACKAGES for each in _subpackages(ROOT / package)]
    for package in packages:
        (folder / f"{_name(package)}.md").write_text(_page(package), encoding="utf-8")
    names = "\n".join(map(_name, packages))
    index = f"# API\n\nOne page per subpackage.\n\n```{{toctree}}\n:maxdepth: 1\n\n{names}\n```\n"
    (folder / "index.md").write_text(index, encoding="utf-8")


def _subpackages(package: Path) -> Iterator[Path]:
    """A package and the packages below it."""
    return (init.parent for init in sorted(package.rglob("__init__.py")))


def _page(package: Path) -> str:
    purpose = ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8"))) or ""
    modules = [file for file in sorted(package.glob("*.py")) if file.name != "__init__.py"]
    parts = [f"## {file.stem}\n\n```{{eval-rst}}\n.. automodule:: {_name(file)}\n```\n" for file in modules]
    return "\n".join([f"# {_name(package)}\n", f"{purpose}\n", *parts])


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


write_api(HERE / "api")
