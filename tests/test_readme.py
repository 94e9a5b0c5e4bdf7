"""Commands of the README and of docs/ are parsed as typed, links lead to files, docs/files.md lists the real ones."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import tomllib
from typing import cast

import pytest
import yaml

from data_modules.cleaning.cleaner import Cleaner
from data_modules.records.formats import FORMATS
from data_modules.rendering.masking import MASKS
from lit_sft.__main__ import COMMANDS
from lit_sft.help_pages import help_page
from tests.documents import DOCUMENTS, ROOT, commands_of, text_of
from tests.lit_sft.help_pages import OTHERS

README = text_of("README.md")
FILES = text_of("docs/files.md")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = re.findall(r"^([a-z-]+):", MAKEFILE, flags=re.MULTILINE)
COMMAND_LINES = sorted({line for name in DOCUMENTS for line in commands_of(name)})


def test_readme_begins_with_two_commands() -> None:
    assert re.findall(r"^    make ([\w-]+)", README, flags=re.MULTILINE) == ["quickstart", "test"]
    assert "make lint types test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_make_targets_of_a_document_exist(name: str) -> None:
    named = re.findall(r"(?:^    |^|`)make ([a-z-]+)", text_of(name), flags=re.MULTILINE)
    assert set(named) <= set(TARGETS)


def test_commands_page_shows_every_command() -> None:
    assert {line.split()[3] for line in commands_of("docs/commands.md")} == COMMANDS.keys()
    assert set(re.findall(r"^\| `([\w-]+)` \|", text_of("docs/commands.md"), flags=re.MULTILINE)) == COMMANDS.keys()


def parser_of_tokenizer_command(name: str) -> argparse.ArgumentParser:
    module = importlib.import_module(f"lit_sft.tokenization.{name}_command")
    parser: argparse.ArgumentParser = module._parser()
    return parser


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_command_of_a_document_is_parsed(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from lit_sft.ablation import command as ablate
    from lit_sft.ablation.study import read_study
    from lit_sft.arena import arena_command as arena
    from lit_sft.arena import ratings_command as ratings
    from lit_sft.arena.player_arguments import read_player
    from lit_sft.arena.suite_prompts import read_prompts
    from lit_sft.chat import command as chat
    from lit_sft.cleaning import command as clean
    from lit_sft.cli import completion, export, find_lr, merge
    from lit_sft.evaluation import command as evaluation
    from lit_sft.evaluation.suite_file import read_suite
    from lit_sft.init import command as init
    from lit_sft.lint.command import lint_parser
    from lit_sft.lint.subjects import with_subject
    from lit_sft.preview.command import preview_parser
    from lit_sft.runs.requests import names_config
    from lit_sft.serve import command as serve
    from lit_sft.settings.options import Command
    from lit_sft.settings.reading import parse_settings
    from lit_sft.shipped import named
    from lit_sft.synthesis.command import read_synthesis

    monkeypatch.chdir(ROOT)
    _, _, _, command, *arguments = shlex.split(line)
    if arguments and arguments[-1].startswith("--help"):
        assert command in COMMANDS
        assert command in OTHERS or help_page([command, *arguments])
        return
    if command == "init":
        assert init._parser().parse_args(arguments).data
        return
    if command == "configs":
        assert all(named(name) for name in arguments)
        return
    if command in ("export", "merge"):
        (export if command == "export" else merge)._parser().parse_args(arguments)
        return
    if command == "completion":
        assert completion._parser().parse_args(arguments).shell
        return
    if command == "chat":
        chat._parser().parse_args(arguments)
        return
    if command == "serve":
        serve._parser().parse_args(arguments)
        return
    if command == "arena":
        options = arena._parser().parse_args(arguments)
        assert all(read_player(model).place for model in options.models or [])
        assert options.suite is None or read_prompts(options.suite)
        return
    if command == "ablate":
        options = ablate._parser().parse_args(arguments)
        assert len(read_study(options.config).all_arms()) > 1
        assert all(name for name, _ in map(ablate._setting, options.set))
        return
    if command == "evaluate":
        options = evaluation._parser().parse_args(arguments)
        assert evaluation._models(options.models)
        read_suite(options.suite, options.set)
        return
    if command == "report":
        assert arguments
        return
    if command == "ratings":
        assert ratings._parser().parse_args(arguments).votes
        return
    if command == "tokenizer":
        parser_of_tokenizer_command(arguments[0]).parse_args(arguments[1:])
        return
    if command == "clean":
        given = clean._parser().parse_args(arguments)
        assert Cleaner.from_settings(clean.rules_of(given.rules))
        return
    if command == "synthesize":
        assert read_synthesis(arguments).output
        return
    if command == "lint":
        of_run = ["--config", "configs/quickstart.yaml"]  # instead of a run, which does not exist yet
        options, _ = with_subject(command, [*of_run, *(a for a in arguments if not a.startswith("runs/"))])
        config = parse_settings(options, parser=lint_parser()).config
        assert config.data.train or config.labels
        return
    arguments = [argument for argument in arguments if argument != "--print_config"]  # which prints and exits
    made_by_init = {"config.yaml": "configs/quickstart.yaml"}  # a stand-in for what `init` would write
    arguments = [made_by_init.get(argument, argument) for argument in arguments]
    if not names_config(arguments):  # takes the newest run's config, as `fit` saved it
        arguments = [
            "--config",
            "configs/quickstart.yaml",
            *(a for a in arguments if not a.startswith(("runs/", "--resume"))),
        ]
    parsers = {"preview": preview_parser, "find-lr": lambda: find_lr._parser("sft")}  # which take more options
    of_command = {"parser": parsers[command]()} if command in parsers else {"command": cast(Command, command)}
    assert parse_settings(arguments, **of_command).config.data.train  # type: ignore[arg-type]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_of_a_document_lead_to_files(name: str) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)[^)]*\)", text_of(name))
    assert [link for link in links if not (DOCUMENTS[name].parent / link).exists()] == []


def test_every_page_is_in_the_index() -> None:
    trees = re.findall(r"```\{toctree\}\n(?:.+\n)+\n((?:.+\n)+)```", text_of("docs/index.md"))
    listed = [line for tree in trees for line in tree.splitlines() if "<" not in line]
    assert sorted(f"docs/{page}.md" for page in [*listed, "index"]) == sorted(DOCUMENTS.keys() - {"README.md"})


@pytest.mark.parametrize(("name", "known"), [("docs/data.md", FORMATS), ("docs/masks.md", MASKS)])
def test_table_names_every_format_or_mask(name: str, known: dict[str, object]) -> None:
    tables = [re.findall(r"^\| `(\w+)` \|", part, flags=re.MULTILINE) for part in text_of(name).split("\n\n")]
    assert set(next(filter(None, tables))) == known.keys()


@pytest.mark.parametrize("package", ["data_modules", "lit_sft", "callbacks"])
def test_file_tree_is_the_real_one(package: str) -> None:
    tree = re.search(rf"^    {package}/ .*\n((?:      .*\n)+)", FILES, flags=re.MULTILINE)
    assert tree is not None
    named, rooms = set(), {6: ""}
    for line in tree[1].splitlines():
        name, indent = line.split()[0], len(line) - len(line.lstrip())
        if name.endswith("/"):
            rooms[indent + 2] = f"{rooms[indent]}{name}"
        else:
            named.add(f"{rooms[indent]}{name}")
    files = [file.relative_to(ROOT / package) for file in (ROOT / package).rglob("*.py")]
    assert named == {file.as_posix() for file in files if file.name != "__init__.py"}


def test_citation_and_issue_templates_are_valid() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (citation["title"], citation["version"], citation["license"]) == (
        project["name"],
        project["version"],
        project["license"],
    )
    for form in ("bug", "feature"):
        fields = yaml.safe_load((ROOT / f".github/ISSUE_TEMPLATE/{form}.yml").read_text(encoding="utf-8"))
        assert all(field["id"] and field["attributes"]["label"] for field in fields["body"])
