"""Import layers: which subpackages each may import; no import cycles."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

DATA = ("records", "cleaning", "rendering", "encoding", "batching")
"""Subpackages of data_modules in the order of data flow: each imports only earlier ones."""

COMMANDS = (
    "cli",
    "init",
    "preview",
    "cleaning",
    "lint",
    "ablation",
    "evaluation",
    "tokenization",
    "synthesis",
    "arena",
    "chat",
    "serve",
)
"""Rooms of commands: none imports another."""

LAYERS: tuple[tuple[str, ...], ...] = (
    # what anything may use: text, files, processes
    (
        "own_packages",
        "help_pages",
        "shipped",
        "printable",
        "credentials",
        "environment",
        "console",
        "fields",
        "yaml_loader",
        "scripts",
        "files",
        "output_files",
        "locks",
        "memory",
        "votes",
        "failures",
    ),
    ("endpoint", "checkpoints", "metrics", "reporting"),
    ("models",),
    ("training", "gguf"),
    ("settings",),
    ("runs",),
    COMMANDS,
    ("__main__",),
)
"""Subpackages and files of lit_sft, lowest layer first: each imports only lower layers, but the lowest also itself."""


def subpackage_of(file: Path) -> tuple[str, str]:
    """Package and subpackage of a file; a file outside any subpackage counts as one."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return parts[0], parts[1] if len(parts) > 1 else ""


def imports(file: Path) -> set[str]:
    """Names of the modules that a file imports, anywhere in it."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def subpackages_used(file: Path) -> set[tuple[str, str]]:
    """Subpackages of this project that a file imports, except its own."""
    found = set()
    for imported in imports(file):
        package, _, rest = imported.partition(".")
        name = rest.partition(".")[0]
        if package in PACKAGES and ((ROOT / package / name).is_dir() or (ROOT / package / f"{name}.py").is_file()):
            found.add((package, name if package != "callbacks" else ""))
    return found - {subpackage_of(file), ("lit_sft", ""), ("data_modules", "")}


PACKAGES = ("data_modules", "lit_sft", "callbacks")
FILES = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
IDS = [str(file.relative_to(ROOT)) for file in FILES]


@pytest.mark.parametrize("file", FILES, ids=IDS)
def test_nothing_imports_upwards(file: Path) -> None:
    package, _ = subpackage_of(file)
    used = {other for other, _ in subpackages_used(file)}
    allowed = {"data_modules": set(), "lit_sft": {"data_modules"}, "callbacks": {"lit_sft", "data_modules"}}
    assert used <= {package} | allowed[package]


@pytest.mark.parametrize("file", [file for file in FILES if subpackage_of(file)[0] == "data_modules"], ids=str)
def test_data_modules_subpackages_import_only_earlier_ones(file: Path) -> None:
    _, name = subpackage_of(file)
    later = set(DATA[DATA.index(name) + 1 :]) if name in DATA else set()
    used = {other for package, other in subpackages_used(file) if package == "data_modules"}
    assert not used & (later | ({"sft_data_module", "text_data_module"} - {name}))


def level_of(name: str) -> int:
    return next(level for level, layer in enumerate(LAYERS) if name in layer)


@pytest.mark.parametrize("file", [file for file in FILES if subpackage_of(file)[0] == "lit_sft"], ids=str)
def test_subpackage_imports_only_lower_layers(file: Path) -> None:
    _, name = subpackage_of(file)
    if name == "__init__":
        return
    used = {other for package, other in subpackages_used(file) if package == "lit_sft"}
    too_high = {other for other in used if level_of(other) > level_of(name)}
    assert not too_high
    if level_of(name):
        assert not {other for other in used if level_of(other) == level_of(name)}, (
            "subpackages of one layer must not import each other"
        )


def test_no_command_imports_another() -> None:
    for file in FILES:
        package, name = subpackage_of(file)
        if package == "lit_sft" and name in COMMANDS:
            used = {other for package, other in subpackages_used(file) if package == "lit_sft"}
            assert not used & set(COMMANDS) - {name}, file


def test_no_import_cycles() -> None:
    arrows: dict[tuple[str, str], set[tuple[str, str]]] = defaultdict(set)
    for file in FILES:
        arrows[subpackage_of(file)] |= subpackages_used(file)
    left = set(arrows)
    while left:
        free = {name for name in left if not arrows[name] & left}
        assert free, f"import cycle: {sorted(left)}"
        left -= free


def test_every_subpackage_is_in_a_layer() -> None:
    found = {subpackage_of(file)[1] for file in FILES if subpackage_of(file)[0] == "lit_sft"} - {"__init__"}
    assert found == {name for layer in LAYERS for name in layer}
