"""The layers of the house: which rooms a room may import, and that no imports form a circle."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

DATA = ("records", "rendering", "encoding", "batching")
"""Rooms of data_modules, in the order in which data passes them: each imports only earlier ones."""

LAYERS: tuple[tuple[str, ...], ...] = (
    # what anything may use: text, files, processes
    (
        "printable",
        "credentials",
        "environment",
        "console",
        "fields",
        "yaml_loader",
        "files",
        "locks",
        "failures",
        "replies",
    ),
    ("endpoint", "checkpoints", "metrics", "reporting"),
    ("models",),
    ("training",),
    ("settings",),
    ("runs",),
    ("cli", "preview", "ablation", "evaluation"),
    ("__main__",),
)
"""Rooms and files of lit_sft, the lowest layer first: each imports only lower ones; in the first, also one another."""

COMMANDS = ("cli", "preview", "ablation", "evaluation")


def room_of(file: Path) -> tuple[str, str]:
    """Package and room of a file; a file that is in no room is one of its own."""
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


def rooms_used(file: Path) -> set[tuple[str, str]]:
    """Rooms of this project that a file imports, its own left out."""
    found = set()
    for name in imports(file):
        package, _, rest = name.partition(".")
        room = rest.partition(".")[0]
        if package in PACKAGES and ((ROOT / package / room).is_dir() or (ROOT / package / f"{room}.py").is_file()):
            found.add((package, room if package != "callbacks" else ""))
    return found - {room_of(file), ("lit_sft", ""), ("data_modules", "")}


PACKAGES = ("data_modules", "lit_sft", "callbacks")
FILES = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
IDS = [str(file.relative_to(ROOT)) for file in FILES]


@pytest.mark.parametrize("file", FILES, ids=IDS)
def test_nothing_imports_upwards(file: Path) -> None:
    package, _ = room_of(file)
    used = {other for other, _ in rooms_used(file)}
    allowed = {"data_modules": set(), "lit_sft": {"data_modules"}, "callbacks": {"lit_sft", "data_modules"}}
    assert used <= {package} | allowed[package]


@pytest.mark.parametrize("file", [file for file in FILES if room_of(file)[0] == "data_modules"], ids=str)
def test_data_passes_the_rooms_in_one_direction(file: Path) -> None:
    _, room = room_of(file)
    later = set(DATA[DATA.index(room) + 1 :]) if room in DATA else set()
    used = {other for package, other in rooms_used(file) if package == "data_modules"}
    assert not used & (later | ({"sft_data_module"} if room != "sft_data_module" else set()))


def level_of(room: str) -> int:
    return next(level for level, rooms in enumerate(LAYERS) if room in rooms)


@pytest.mark.parametrize("file", [file for file in FILES if room_of(file)[0] == "lit_sft"], ids=str)
def test_a_room_imports_lower_rooms_only(file: Path) -> None:
    _, room = room_of(file)
    if room == "__init__":
        return
    used = {other for package, other in rooms_used(file) if package == "lit_sft"}
    too_high = {other for other in used if level_of(other) > level_of(room)}
    assert not too_high
    if level_of(room):
        assert not {other for other in used if level_of(other) == level_of(room)}, "rooms of one layer do without"


def test_no_command_imports_another() -> None:
    for file in FILES:
        package, room = room_of(file)
        if package == "lit_sft" and room in COMMANDS:
            assert not {other for _, other in rooms_used(file)} & set(COMMANDS) - {room}, file


def test_rooms_form_no_circle() -> None:
    arrows: dict[tuple[str, str], set[tuple[str, str]]] = defaultdict(set)
    for file in FILES:
        arrows[room_of(file)] |= rooms_used(file)
    left = set(arrows)
    while left:
        free = {room for room in left if not arrows[room] & left}
        assert free, f"in a circle: {sorted(left)}"
        left -= free


def test_no_room_is_missing_from_the_layers() -> None:
    found = {room_of(file)[1] for file in FILES if room_of(file)[0] == "lit_sft"} - {"__init__"}
    assert found == {room for rooms in LAYERS for room in rooms}
