"""Suites: error messages name the file and the setting."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lit_sft.evaluation.suite import AnswerSet, TextSet
from lit_sft.evaluation.suite_file import read_suite

Write = Callable[..., str]
ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("choices: [", "not valid YAML"),
        ("- 1", "expected names and values"),
        ("question: Why?", "no sets: give at least one of text, conversations"),
        ("choicse: {general: {}}", r"unknown setting choicse; did you mean choices\?$"),
        ("sets: {general: {}}", "unknown setting sets; the settings are .*choices"),
        (
            "choices: {general: {rulez: []}}",
            r"setting choices.general.rulez; did you mean choices.general.rules\?$",
        ),
        ("choices: {general: {x: []}}", "unknown setting choices.general.x; the settings are data, forms, rules"),
        ("choices: {general: {rules: [best]}}", "rules.*'sum'"),
        ("choices: {general: {rows: none}}", "choices.general.rows 'none': expected a whole number or null"),
        (
            "choices: {general: {forms: [oral]}}",
            "choices.general.forms .*: expected a list of one of 'cloze', 'letter'",
        ),
        ("choices: [general]", "choices: expected names of sets and their settings"),
        ("choices: {general: {rows: 0}}", " choices.general.rows 0: expected at least 1"),
        ("text: {a: {window: 4}}", "text.a.data: missing"),
        ("text: {a: {data: x.txt, window: 4, stride: 4}}", " text.a.stride 4: expected less than the window, 4"),
        ("choices: {a: {}, a: {rows: 1}}", "duplicate key 'a'"),
        ("choices: {'..': {}}", "expected a plain name"),
        ("answers: {a: {data: x, temperature: -1}}", " answers.a.temperature -1: expected at least 0"),
        ("prompts: {a: {prompts: ['']}}", " prompts.a.prompts: expected at least one, none of them empty"),
        ("choices: {a: {}}\nanswers: {a: {data: x}}", "set 'a': expected a plain name that no other set has"),
        ("choices: {a/b: {}}", "set 'a/b': expected a plain name"),
        (f"answers: {{a: {{data: x, top_p: 1{'0' * 400}}}}}", "a number of more than 300 digits"),
        ('choices: {"a\\e[2J": {}}', "expected a plain name"),
        ('name: "a\\u202e"\nchoices: {a: {}}', "expected a plain name"),
        ("choices: {a: {}}\nharness: {b: {task: x, shots: -1}}", " harness.b.shots -1: expected at least 0"),
        ("choices: {a: {}}\njudge: {sets: [], model: m, endpoint: 'ftp://u:pw@h'}", " judge.endpoint: not an HTTP"),
        ("choices: {a: {}}\ntemplate: chat", "template"),
        ("choices: {a: {}}\njudge: {sets: [b], model: m}", " judge.sets: no set of answers or prompts named 'b'"),
        ("choices: {a: {}}\noverlap: 0", "overlap 0"),
        ("choices: {a: {}}\npublished: [S9]", "published S9: expected some of qwen_alpaca"),
        ("choices:\ntext:", "no sets"),
        ("text: {a: {data: x.txt, window: 1}}", " text.a.window 1: expected at least 2"),
        ("choices: {a: {rules: []}}", " choices.a.rules: expected at least one"),
        ("answers: {a: {data: x, top_p: 0}}", " answers.a.top_p 0: expected more than 0, at most 1"),
        (
            "choices: {a: {}}\njudge: {sets: [], model: m, timeout: .inf}",
            " judge.timeout inf: expected more than 0",
        ),
    ],
)
def test_error_names_the_file_and_the_setting(write: Write, content: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"mine\.yaml:.*{message}"):
        read_suite(write("mine.yaml", content))


@pytest.mark.parametrize(
    "content",
    [
        "judge: [{endpoint: 'https://me:pass-77@host/v1?key=pass-77'}]",
        "choices: {a: {}}\njudge: {sets: [], model: m, endpoint: 'https://me:pass-77@host:port/v1'}",
        "choices: {a: {}}\njudge: {sets: [], model: m, endpoint: {https://me:pass-77@host: x}}",
        'choices: {a: {}}\njudge: {endpoint: "https://me:pass-77@host/v1?key=pass-77}',
    ],
)
def test_no_message_repeats_the_credentials_of_an_address(write: Write, content: str) -> None:
    path = write("mine.yaml", content)
    with pytest.raises(ValueError, match=r"mine\.yaml") as raised:
        read_suite(path)
    assert "pass-77" not in str(raised.value)
    with pytest.raises(ValueError, match="--set judge") as raised:
        read_suite(write("mine.yaml", "choices: {a: {}}"), ["judge.endpoint: https://me:pass-77@host"])
    assert "pass-77" not in str(raised.value)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ValueError, match=r"no/suite\.yaml: no such file; check the path"):
        read_suite("no/suite.yaml")


def test_sets_are_typed(write: Write) -> None:
    suite = read_suite(write("mine.yaml", "text: {a: {data: x.txt, stride: 2}}\nanswers: {b: {data: [y, z]}}"))
    assert suite.name == "mine"
    assert list(suite.sets()) == [("text", "a", TextSet("x.txt", stride=2)), ("answers", "b", AnswerSet(["y", "z"]))]


def test_settings_are_changed_on_the_command_line(write: Write) -> None:
    path = write("mine.yaml", "text: {a: {data: x.txt}}")
    suite = read_suite(path, ["text.a.stride=3", "answers.b.data=[y, z]"])
    assert list(suite.sets()) == [("text", "a", TextSet("x.txt", stride=3)), ("answers", "b", AnswerSet(["y", "z"]))]
    for change, message in (("text", "expected NAME=VALUE"), ("text.a.data.b=1", "data is a value")):
        with pytest.raises(ValueError, match=message):
            read_suite(path, [change])


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ("txet.a.stride=3", "unknown setting txet; did you mean text?"),
        ("text.a.stried=3", "unknown setting text.a.stried; did you mean text.a.stride?"),
        ("text.essay.stride=3", "the suite has no set text.essay; did you mean text.essays?"),
        ("text.other.stride=3", "the suite has no set text.other; a new one needs text.other.data."),
        ("judge.modle=x", "unknown setting judge.modle; did you mean judge.model?"),
        ("--text.a.x=3", "unknown setting text.a.x; the settings are data, window, stride, rows."),
    ],
)
def test_a_misspelt_change_is_named_as_it_was_typed(write: Write, change: str, advice: str) -> None:
    path = write("mine.yaml", "text: {a: {data: x.txt}, essays: {data: y.txt}}")
    with pytest.raises(ValueError, match=r"^--set") as raised:
        read_suite(path, [change])
    assert str(raised.value) == f"--set {change}: {advice}"


def test_later_changes_may_replace_earlier_ones(write: Write) -> None:
    path = write("mine.yaml", "text: {a: {data: x.txt}}")
    suite = read_suite(path, ["choices.new.data=general", "choices.new.rows=3", "choices=null"])
    assert [name for _, name, _ in suite.sets()] == ["a"]


def test_misspelt_file_is_searched_in_the_suites_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for given in ("configs/evaluate/quikstart.yaml", "quickstart", "quickstart.yml"):
        with pytest.raises(
            ValueError, match=rf"{re.escape(given)}: no such file; did you mean configs/evaluate/quickstart.yaml\?"
        ):
            read_suite(given)


@pytest.mark.parametrize("file", sorted((ROOT / "configs" / "evaluate").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_suite_in_configs_is_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    suite = read_suite(str(file))
    assert suite.question
    for _, _, settings in suite.sets():
        data = getattr(settings, "data", [])
        for name in [data] if isinstance(data, str) else data:
            is_made = name.startswith("runs/from_scratch/")  # by `make from-scratch`
            assert name == "general" or name.isupper() or is_made or Path(name).exists()
