"""`--help`: pages equal to what the real parsers say, without importing them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from data_modules.errors import UserError
from lit_sft.__main__ import COMMANDS, main
from lit_sft.help_pages import ESSENTIAL, PAGES, SECTIONS, help_page, settings
from tests.lit_sft.help_pages import OTHERS, made_pages, parser_of, type_in_words

PLAIN = sorted(COMMANDS.keys() - ESSENTIAL.keys() - OTHERS.keys() - {"synthesize"})
"""Commands whose parser is argparse's."""


@pytest.fixture(scope="module")
def pages() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(PAGES.read_text(encoding="utf-8"))
    return read


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def shown(*arguments: str) -> str:
    page = help_page(arguments)
    assert page is not None
    return page


def test_pages_are_those_of_the_real_parsers(pages: dict[str, Any]) -> None:
    assert pages == json.loads(json.dumps(made_pages())), "options have changed: run `make help-pages`"


@pytest.mark.parametrize("command", PLAIN)
def test_page_of_a_command_says_what_its_parser_says(command: str) -> None:
    assert shown(command, "--help").split() == parser_of(command).format_help().split()


@pytest.mark.parametrize("command", ESSENTIAL)
def test_settings_that_a_page_shows_exist(command: str, pages: dict[str, Any]) -> None:
    for names in ESSENTIAL[command].values():
        assert [name for name in names if name not in settings(pages)] == []


@pytest.mark.parametrize("command", ESSENTIAL)
def test_page_of_settings_begins_with_the_options_of_the_command(command: str) -> None:
    page = shown(command, "-h")
    own = {"preview": ["  --split ", "  -c "], "lint": ["  --labels ", "  -c "]}.get(command, ["  -c "])
    places = [page.index(words) for words in [*own, "\n\nWhich ", "\n\n--help.data"]]
    assert places == sorted(places)
    assert "--data.keep_together" not in page
    assert "--ckpt_path" not in page
    assert ("--resume" in page) == (command == "fit")
    assert page.endswith("--help.all: all of them.\n")


@pytest.mark.parametrize("topic", SECTIONS)
def test_topic_lists_every_setting_of_its_sections(topic: str, pages: dict[str, Any]) -> None:
    page = shown("fit", f"--help.{topic}")
    for name in settings(pages):
        is_inside = name.partition(".")[0] in SECTIONS[topic]
        assert (f"  --{name} " in page) == is_inside, name


def test_all_lists_every_setting_and_own_option(pages: dict[str, Any]) -> None:
    page = shown("preview", "--help.all")
    assert all(f"  --{name} " in page for name in [*settings(pages), "split", "ckpt_path", "data_module"])


def test_text_runs_have_a_page_of_their_own() -> None:
    page, text = (shown("fit", *of, "--help.data") for of in ([], ["--data_module", "text"]))
    assert "--data.mask " in page
    assert "--data.blocks " not in page
    assert "--data.mask " not in text
    assert "--data.blocks " in text
    assert shown("fit", "--data_module=text", "--help.data") == text


def test_unknown_topic_is_an_error_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"^--help\.dta: no such help; did you mean data\?$"):
        help_page(["fit", "--help.dta"])
    assert main(["fit", "--help.xyz"]) == 2
    assert "expected one of data, model, trainer, run, all." in capsys.readouterr().err


@pytest.mark.parametrize("columns", ["", "x", "0"])
def test_a_width_that_is_no_number_is_ignored(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert "--data.train" in shown("fit", "--help")


def test_no_page_where_none_is_asked_for_or_the_parser_must_answer() -> None:
    assert help_page(["fit", "--config", "x.yaml"]) is None
    assert help_page(["tokenizer", "train", "--help"]) is None
    assert help_page(["chat", "--help.data"]) is None
    assert help_page(["fit", "--trainer.callbacks.help", "RunHealth"]) is None


def test_types_are_named_alike_in_every_version_of_python() -> None:
    from typing import Literal, Optional, Union

    assert type_in_words(Optional[int]) == type_in_words(int | None) == "INT"  # noqa: UP045
    assert type_in_words(Union[Literal["a", "b"], Literal["b", 1], None]) == "{a,b,1}"  # noqa: UP007
    assert type_in_words(str | list[str]) == "LIST|TEXT"
    assert type_in_words(dict[str, str]) == "MAPPING"
