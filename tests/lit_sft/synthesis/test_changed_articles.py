"""Conversations whose articles are missing, or have changed since: no request is about another text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lit_sft.files import digest, write_lines
from lit_sft.synthesis.command import main
from lit_sft.synthesis.reading import Subject, Subjects
from lit_sft.synthesis.recipe import read_recipe
from lit_sft.synthesis.settings import ModelSettings, SynthesisSettings
from tests.lit_sft.stub_server import StubServer
from tests.lit_sft.synthesis.conftest import Run, StartStub
from tests.lit_sft.synthesis.writer import english, rows_of, write_articles

pytest.importorskip("openai")

TURN = '{"next_question": "And then?", "next_answer": "Nothing."}'
MISSING, CHANGED = "missing_article", "changed_article"


def read(recipe: str, **settings: Any) -> list[Subject]:
    model = ModelSettings(endpoint="http://127.0.0.1:9/v1", name="m")
    return list(Subjects(SynthesisSettings("out", model, recipe, **settings), read_recipe(recipe)))


def rows_with(path: Path, **provenance: Any) -> str:
    """A pair about the article `house 0`."""
    row = {"instruction": "Who?", "output": "Ada.", "article_id": "house 0"}
    write_lines(path, [{**row, "provenance": {"origin": "x:1", **provenance}} if provenance else row])
    return str(path)


@pytest.fixture
def make_pairs(start_stub: StartStub, run: Run, tmp_path: Path) -> Callable[..., tuple[Path, str]]:
    """Writes articles and makes pairs of them; returns the file of the articles and that of the pairs."""

    def _make(texts: list[str], *, named: bool = True, **settings: Any) -> tuple[Path, str]:
        articles = write_articles(tmp_path / "a.jsonl", texts, named=named)
        run(start_stub(), articles=articles, output=str(tmp_path / "first"), **settings)
        return Path(articles), str(tmp_path / "first" / "pairs.jsonl")

    return _make


MakePairs = Callable[..., tuple[Path, str]]


def second_turns(server: StubServer, articles: Path, pairs: str, folder: Path) -> int:
    own = ["--model.endpoint", server.address, "--model.name", "m", "--checks", "[]", "--output", str(folder)]
    return main(["synthesize", "--recipe", "second_turn", "--articles", str(articles), "--records", pairs, *own])


def test_inserted_line_gives_no_pair_another_article(
    make_pairs: MakePairs, start_stub: StartStub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    articles, pairs = make_pairs([english(0), english(1)], named=False)
    articles.write_text(json.dumps({"text": english(2)}) + "\n" + articles.read_text())
    server = start_stub(lambda body: TURN)
    assert second_turns(server, articles, pairs, tmp_path / "out") == 1
    assert server.bodies == []
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "8 pairs: 0 accepted, 0 refused, 8 failed, 0 not reached"
    assert f"every pair failed, most with {CHANGED}: the article '{articles}:1' at {articles}:1 no longer has" in err
    assert "Set --articles to the files as they were then" in err
    assert (out + err).count("no longer has") == 1
    failed = rows_of(tmp_path / "out" / "failed.jsonl")
    assert len(failed) == 8
    assert (failed[0]["fault"], failed[0]["record"]) == (CHANGED, f"{pairs}:1")
    assert failed[0]["text_digest"] == digest(english(0))


def test_the_other_pairs_are_asked_about(
    make_pairs: MakePairs, start_stub: StartStub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    articles, pairs = make_pairs([english(n) for n in range(4)])
    texts = [english(3), english(0).replace("painted", "first painted"), english(1)]
    names = ["house 3", "house 0", "house 1"]
    write_lines(articles, ({"text": text, "article_id": name} for name, text in zip(names, texts, strict=True)))
    server = start_stub(lambda body: TURN)
    assert second_turns(server, articles, pairs, tmp_path / "out") == 0
    prompts = [body["messages"][0]["content"] for body in server.bodies or []]
    assert [sum(english(n) in prompt for prompt in prompts) for n in range(4)] == [0, 4, 0, 4]
    assert len(prompts) == 8
    made = rows_of(tmp_path / "out" / "pairs.jsonl")
    assert made[0]["provenance"]["origin"] == f"{articles}:3"
    assert made[0]["provenance"]["text_digest"] == digest(english(1))
    out = capsys.readouterr().out
    assert f"  failed, {CHANGED}: 4, the first: the article 'house 0' at {articles}:2 no longer has the text" in out
    assert f"  failed, {MISSING}: 4, the first: no article has the article_id 'house 2'" in out


@pytest.mark.parametrize("change", ["longer before", "shorter", "other"])
def test_parts_of_articles_that_have_changed(make_pairs: MakePairs, change: str) -> None:
    text = english(0, facts=13)
    articles, pairs = make_pairs([text], max_characters=200, long_articles="split")
    changed = {"longer before": f"New. {text}", "shorter": text[:250], "other": english(1, facts=13)}[change]
    write_articles(articles, [changed])
    faults = [each.fault for each in read("second_turn", articles=str(articles), records=pairs)]
    assert faults == {"shorter": [""] * 5 + [CHANGED] * 8}.get(change, [CHANGED] * 13)


def test_articles_of_one_id_that_have_moved(make_pairs: MakePairs) -> None:
    articles, pairs = make_pairs([english(0)], named=False)
    rows = [{"text": english(n), "article_id": "book"} for n in (1, 0)]
    write_lines(articles, rows)
    pair = {**rows_of(Path(pairs))[0], "article_id": "book"}
    write_lines(Path(pairs), [pair])
    assert [each.fault for each in read("second_turn", articles=str(articles), records=pairs)] == [CHANGED]


def test_paraphrases_are_not_checked_against_another_article(make_pairs: MakePairs) -> None:
    articles, pairs = make_pairs([english(0)])
    assert [each.article.text for each in read("paraphrase", articles=str(articles), records=pairs)] == [english(0)] * 4
    write_articles(articles, [english(1)])
    assert {each.fault for each in read("paraphrase", articles=str(articles), records=pairs)} == {CHANGED}
    write_lines(articles, [{"text": english(1), "article_id": "other"}])
    assert {each.fault for each in read("paraphrase", articles=str(articles), records=pairs)} == {MISSING}
    without = read("paraphrase", records=pairs)
    assert [(each.fault, each.article.digest) for each in without] == [("", digest(english(0)))] * 4


def test_provenance_of_earlier_versions_is_read_with_a_warning(
    start_stub: StartStub, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    articles = write_articles(tmp_path / "a.jsonl", [english(0)])
    records = rows_with(tmp_path / "p.jsonl", span=[5, 20])
    server = start_stub(lambda body: TURN)
    run(server, recipe="second_turn", articles=articles, records=records, checks=[])
    assert (
        "--records: no `text_digest` in the provenance of 1 of 1 pair, so it goes unnoticed if"
        in capsys.readouterr().out
    )
    (made,) = rows_of(tmp_path / "out" / "pairs.jsonl")
    start, stop = made["provenance"]["span"]
    assert made["provenance"]["text_digest"] == digest(english(0)[start:stop])
    run(server, recipe="second_turn", articles=articles, records=rows_with(tmp_path / "p.jsonl"), checks=[])
    assert "text_digest" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("span", "shown", "fault"),
    [
        ([5, 20], english(0)[5:20].strip(), ""),
        ([5, 20_000], "", CHANGED),
        ([3, 4], "", CHANGED),  # white space
        ([20, 5], english(0), ""),
        (["a", 3], english(0), ""),
        ([-3, 5], english(0), ""),
        (None, english(0), ""),
    ],
)
def test_a_span_without_a_digest_must_be_in_the_article(tmp_path: Path, span: Any, shown: str, fault: str) -> None:
    articles = write_articles(tmp_path / "a.jsonl", [english(0)])
    (found,) = read("second_turn", articles=articles, records=rows_with(tmp_path / "p.jsonl", span=span))
    assert (found.article.text, found.fault) == (shown, fault)
