"""The commands of the README are parsed as typed, and it stays short; the tree of docs/files.md is the real one."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import cast

import pytest

from data_modules.records.formats import FORMATS
from data_modules.rendering.masking import MASKS
from lit_sft.__main__ import COMMANDS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FILES = (ROOT / "docs" / "files.md").read_text(encoding="utf-8")
BLOCKS = [line[4:] for line in README.replace("\\\n", " ").splitlines() if line.startswith("    ")]
COMMAND_LINES = [line.partition("#")[0].strip() for line in BLOCKS if line.startswith("python -m lit_sft")]
TARGETS = re.findall(r"^    make (\w+)", README, flags=re.MULTILINE)


def test_readme_has_at_most_200_lines() -> None:
    assert len(README.splitlines()) <= 200


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert TARGETS == ["quickstart", "test"]
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in TARGETS)
    assert "make lint types test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_readme_shows_every_command() -> None:
    assert {line.split()[3] for line in COMMAND_LINES} >= COMMANDS.keys() - {"validate"}


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_command_of_the_readme_is_parsed(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from lit_sft.ablation import command as ablate
    from lit_sft.ablation.study import read_study
    from lit_sft.cli.export import _parser
    from lit_sft.evaluation import command as evaluation
    from lit_sft.evaluation.suite_file import read_suite
    from lit_sft.preview.command import preview_parser
    from lit_sft.runs.requests import names_config
    from lit_sft.settings.options import Command, training_parser
    from lit_sft.settings.reading import parse_settings

    monkeypatch.chdir(ROOT)
    _, _, _, command, *arguments = shlex.split(line)
    if command == "export":
        _parser().parse_args(arguments)
        return
    if command == "ablate":
        read_study(ablate._parser().parse_args(arguments).config)
        return
    if command == "evaluate":
        options = evaluation._parser().parse_args(arguments)
        assert evaluation._models(options.models)
        read_suite(options.suite)
        return
    if command == "report":
        assert arguments
        return
    if not names_config(arguments):  # takes the newest run's config, as `fit` saved it
        arguments = [
            "--config",
            "configs/quickstart.yaml",
            *(a for a in arguments if not a.startswith(("runs/", "--resume"))),
        ]
    parser = preview_parser() if command == "preview" else training_parser(cast(Command, command))
    assert parse_settings(arguments, parser=parser).config.data.train


def test_tables_name_every_format_and_mask() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", README, flags=re.MULTILINE)
    assert set(rows) == {*FORMATS, *MASKS}


@pytest.mark.parametrize("package", ["data_modules", "lit_sft", "callbacks"])
def test_file_tree_is_the_real_one(package: str) -> None:
    tree = re.search(rf"^    {package}/ .*\n((?:      .*\n)+)", FILES, flags=re.MULTILINE)
    assert tree is not None
    named, room = set(), ""
    for line in tree[1].splitlines():
        name = line.split()[0]
        if name.endswith("/"):
            room = name
        else:
            named.add(f"{room}{name}" if line.startswith(" " * 8) else name)
    files = [file.relative_to(ROOT / package) for file in (ROOT / package).rglob("*.py")]
    assert named == {file.as_posix() for file in files if file.name != "__init__.py"}
