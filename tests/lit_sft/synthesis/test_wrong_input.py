"""Mistakes in settings, recipes and files: each ends in one line that says what to do, and shows no credentials."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lit_sft.__main__ import main
from tests.lit_sft.synthesis.conftest import StartStub

pytest.importorskip("openai")

MODEL = ("--model.endpoint", "http://127.0.0.1:9/v1", "--model.name", "m", "--model.key_variable", "null")
GIVEN = ("--output", "out", "--articles", "a.jsonl")
USUAL = (*GIVEN, *MODEL)
PAIRS = ("--output", "out", "--records", "p.jsonl", *MODEL)

WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "no settings": ((), "--output: not given"),
    "no output": (("--articles", "a.jsonl", *MODEL), "--output: not given; expected the folder"),
    "no model": (GIVEN, "--model.endpoint and --model.path: neither is given"),
    "two models": ((*USUAL, "--model.path", "gpt2"), "--model.endpoint and --model.path: both are given"),
    "no name": ((*GIVEN, "--model.endpoint", "http://127.0.0.1:9/v1"), "--model.name: missing"),
    "name of a local model": ((*GIVEN, "--model.path", "gpt2", "--model.name", "m"), "named by --model.path"),
    "device of an endpoint": (
        (*USUAL, "--model.device", "cpu"),
        "--model.device: has an effect only with --model.path; remove the setting",
    ),
    "rate of a local model": (
        (*GIVEN, "--model.path", "gpt2", "--model.rate", "5"),
        "--model.rate: has an effect only with --model.endpoint; remove the setting",
    ),
    "prices of a local model": (
        (*GIVEN, "--model.path", "gpt2", "--model.prices.read", "5"),
        "--model.prices: has an effect only with --model.endpoint; remove the setting",
    ),
    "not an address": ((*USUAL, "--model.endpoint", "localhost:8080"), "--model.endpoint: not an HTTP address"),
    "no key": ((*USUAL, "--model.key_variable", "NO_SUCH_KEY"), "the environment variable NO_SUCH_KEY is empty"),
    "unknown option": ((*USUAL, "--model.temprature", "1"), "did you mean --model.temperature or"),
    "unknown setting": (
        (*USUAL, "--config", "unknown.yaml"),
        "unknown.yaml:2: unknown setting 'artcles'; did you mean",
    ),
    "config is no mapping": ((*USUAL, "--config", "list.yaml"), "list.yaml: expected a mapping of settings"),
    "config is missing": ((*USUAL, "--config", "none.yaml"), "none.yaml"),
    "duplicate key": ((*USUAL, "--config", "twice.yaml"), "twice.yaml:2: duplicate key 'seed'"),
    "null": ((*USUAL, "--attempts", "null"), "--attempts: expected a whole number, got null"),
    "null of the model": ((*USUAL, "--model.temperature", "null"), "--model.temperature"),
    "null in a config": (
        (*USUAL, "--config", "null.yaml"),
        "--model.temperature: cannot be null (float); leave it out",
    ),
    "null of the prices": ((*USUAL, "--config", "currency.yaml"), "--model.prices.currency: cannot be null (str)"),
    "attempts 0": ((*USUAL, "--attempts", "0"), "--attempts 0: expected at least 1"),
    "attempts in words": ((*USUAL, "--attempts", "three"), "--attempts"),
    "temperature below 0": ((*USUAL, "--model.temperature", "-1"), "--model.temperature -1: expected at least 0"),
    "top_p 2": ((*USUAL, "--model.top_p", "2"), "--model.top_p 2: expected more than 0, at most 1"),
    "concurrency 0": ((*USUAL, "--model.concurrency", "0"), "--model.concurrency 0: expected at least 1"),
    "timeout 0": ((*USUAL, "--model.timeout", "0"), "--model.timeout 0: expected more than 0 seconds"),
    "max_tokens 0": ((*USUAL, "--model.max_tokens", "0"), "--model.max_tokens 0: expected at least 1"),
    "rate 0": ((*USUAL, "--model.rate", "0"), "--model.rate 0: expected more than 0 requests a minute"),
    "negative price": ((*USUAL, "--model.prices.read", "-1"), "--model.prices.read -1: expected at least 0"),
    "cost without prices": ((*USUAL, "--max_cost", "1"), "the prices of m are unknown; set --model.prices.read and"),
    "max_cost 0": ((*USUAL, "--max_cost", "0"), "--max_cost 0: expected more than 0"),
    "max_articles 0": ((*USUAL, "--max_articles", "0"), "--max_articles 0: expected at least 1"),
    "max_characters": ((*USUAL, "--max_characters", "10"), "--max_characters 10: expected at least 100"),
    "seed": ((*USUAL, "--seed", "-1"), "--seed -1: expected a whole number"),
    "unknown recipe": ((*USUAL, "--recipe", "pears"), "--recipe pears: no such recipe; did you mean pairs?"),
    "missing recipe": ((*USUAL, "--recipe", "mine.yaml"), "mine.yaml: no such file"),
    "unknown limit": ((*USUAL, "--limits", "{length: 3}"), "recipe pairs has no limit 'length'; it has"),
    "limit 0": ((*USUAL, "--limits", "{question_length: 0}"), "question_length is 0; expected at least 1"),
    "unknown check": ((*USUAL, "--checks", "[length]"), "length"),
    "unknown option of a check": ((*USUAL, "--checks", "[{lengths: {questions: [1, 2]}}]"), "questions"),
    "checks are no list": ((*USUAL, "--checks", "{lengths: null}"), "--checks"),
    "no such language": ((*USUAL, "--language", "de"), "--language"),
    "no articles": (("--output", "out", *MODEL), "--articles: not given; recipe pairs makes"),
    "no such articles": ((*USUAL, "--articles", "b.jsonl"), "b.jsonl"),
    "empty articles": ((*USUAL, "--articles", "empty.jsonl"), "empty.jsonl: the file is empty"),
    "blank article": ((*USUAL, "--articles", "blank.jsonl"), "blank.jsonl:1: the text is empty"),
    "only invalid articles": (
        (*USUAL, "--articles", "blank.jsonl", "--on_invalid", "drop"),
        "nothing to ask about: 1 invalid record, first: blank.jsonl:1: the text is empty",
    ),
    "articles without text": ((*USUAL, "--articles", "p.jsonl"), "p.jsonl:1: no field 'text'; found "),
    "no such column": ((*USUAL, "--columns", "{text: body}"), "--columns"),
    "no such column in the first articles": (
        (*USUAL, "--columns", "{text: body}", "--max_articles", "1"),
        "`--columns` reads text from 'body', which no record has; correct the name, or remove it",
    ),
    "conversations as articles": (
        (*USUAL, "--articles", "turns.jsonl"),
        "turns.jsonl:1: no field 'text'; found messages. This is a conversation, not an article: give conversations as "
        "--records, to a recipe that reads them, such as second_turn. To drop",
    ),
    "unknown column": ((*USUAL, "--columns", "{txt: text}"), "--columns: no format has the field 'txt'"),
    "records for pairs": ((*USUAL, "--records", "p.jsonl"), "--records: recipe pairs reads articles only"),
    "requests for pairs": ((*USUAL, "--requests", "3"), "--requests: recipe pairs makes one for each article"),
    "no records": ((*USUAL, "--recipe", "paraphrase"), "--records: not given; recipe paraphrase reads pairs"),
    "no articles of pairs": ((*PAIRS, "--recipe", "second_turn"), "--articles: not given; recipe second_turn"),
    "pair without article_id": (
        (*PAIRS, "--recipe", "second_turn", "--articles", "a.jsonl"),
        "p.jsonl:1: no 'article_id'; expected the one of its article",
    ),
    "two turns to paraphrase": (
        (*PAIRS, "--recipe", "paraphrase", "--records", "turns.jsonl"),
        "turns.jsonl:1: the messages are user, assistant, user, assistant; expected a question and its answer",
    ),
    "examples for pairs": (
        (*USUAL, "--examples", "3"),
        "--examples: has no effect on recipe pairs here; remove the setting",
    ),
    "format of articles": ((*USUAL, "--format", "alpaca"), "--format: has no effect on recipe pairs"),
    "long articles of records": (
        (*PAIRS, "--recipe", "paraphrase", "--long_articles", "split"),
        "--long_articles: has no effect on recipe paraphrase",
    ),
    "no requests": ((*PAIRS, "--recipe", "self_instruct"), "--requests: not given"),
    "few seed tasks": (
        (*PAIRS, "--recipe", "self_instruct", "--requests", "2"),
        "--records: 1 seed task; expected at least 4, as in --examples",
    ),
    "output with a zero byte": ((*USUAL, "--output", "a\0b"), "--output 'a\\x00b': not a name of a file or folder"),
    "output without a name": ((*USUAL, "--output", ""), "--output '': not a name of a file or folder"),
    "output is a file": ((*USUAL, "--output", "p.jsonl"), "--output p.jsonl: cannot write there"),
    "output is read": (
        (*USUAL, "--output", "made", "--articles", "made/a.jsonl"),
        "--output made: holds made/a.jsonl, which is read; choose another folder",
    ),
    "records of the output": (
        ("--output", "own", "--records", "own/pairs.jsonl", "--recipe", "paraphrase", *MODEL),
        "--output own: holds own/pairs.jsonl, which is read; choose another folder",
    ),
    "pairs of somebody else": (
        (*USUAL, "--output", "own"),
        "--output own: has a pairs.jsonl that `synthesize` did not write, and that it would replace",
    ),
    "output is a run": ((*USUAL, "--output", "run"), "--output run: has a config.yaml that `synthesize` did not write"),
    "local model is missing": (
        ("--output", "out", "--articles", "a.jsonl", "--model.path", "./no-model"),
        "no-model",
    ),
    "cost of a local model": (
        ("--output", "out", "--articles", "a.jsonl", "--model.path", "./no-model", "--max_cost", "1"),
        "--max_cost: a local model costs nothing",
    ),
}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that the mistakes are made with, in the working directory."""
    monkeypatch.chdir(tmp_path)
    turns = [{"role": role, "content": "x"} for role in ("user", "assistant")]
    lines = {
        "a.jsonl": {"text": "The ferry leaves at nine."},
        "blank.jsonl": {"text": " "},
        "p.jsonl": {"instruction": "Who?", "output": "Ada."},
        "turns.jsonl": {"messages": turns * 2},
    }
    for name, row in lines.items():
        Path(name).write_text(json.dumps(row) + "\n", encoding="utf-8")
    Path("empty.jsonl").touch()
    for name in ("made/a.jsonl", "run/config.yaml", "own/pairs.jsonl"):
        Path(name).parent.mkdir()
        Path(name).write_text("{}\n", encoding="utf-8")
    Path("unknown.yaml").write_text("# mine\nartcles: a.jsonl\n", encoding="utf-8")
    Path("null.yaml").write_text("model: {temperature: null}\n", encoding="utf-8")
    Path("currency.yaml").write_text("model: {prices: {currency: null}}\n", encoding="utf-8")
    Path("list.yaml").write_text("- a.jsonl\n", encoding="utf-8")
    Path("twice.yaml").write_text("seed: 1\nseed: 2\n", encoding="utf-8")


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("case", WRONG)
def test_mistake_ends_in_one_line(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, expected = WRONG[case]
    status = main(["synthesize", *arguments])
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    print(err)
    assert len(err.splitlines()) == 1, err
    assert expected in err
    assert err.startswith("lit_sft synthesize: ")
    assert "Traceback" not in err


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("wrong", [("--attempts", "0"), ("--model.rate", "0"), ("--articles", "b.jsonl")])
def test_mistake_shows_no_credentials(wrong: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    secret = "http://me:Pa55w0rdOfMine@127.0.0.1:9/v1?token=T0kenOfMine"
    assert (
        main(
            [
                "synthesize",
                *GIVEN,
                "--model.name",
                "m",
                "--model.key_variable",
                "null",
                "--model.endpoint",
                secret,
                *wrong,
            ]
        )
        == 2
    )
    err = capsys.readouterr().err
    assert "OfMine" not in err
    assert all("OfMine" not in path.read_text() for path in Path().rglob("*") if path.is_file())


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (("--columns", "{article_id: key}"), "`--columns` reads article_id from 'key', which no record has"),
        (("--articles", "[a.jsonl, blank.jsonl]"), "blank.jsonl:1: the text is empty"),
    ],
)
def test_mistake_in_a_file_is_found_before_anything_is_asked(
    wrong: tuple[str, str], expected: str, start_stub: StartStub, capsys: pytest.CaptureFixture[str]
) -> None:
    server = start_stub()
    assert main(["synthesize", *GIVEN, "--model.endpoint", server.address, "--model.name", "m", *wrong]) == 2
    assert expected in capsys.readouterr().err
    assert server.bodies == []
