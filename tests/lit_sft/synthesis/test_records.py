"""Recipes about conversations and seed tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_modules.errors import UserError
from lit_sft.synthesis.articles import Articles
from lit_sft.synthesis.reading import Subjects
from lit_sft.synthesis.recipe import read_recipe
from lit_sft.synthesis.settings import ModelSettings, SynthesisSettings
from tests.lit_sft.synthesis.conftest import Run, StartStub
from tests.lit_sft.synthesis.writer import english, rows_of, write_articles

pytest.importorskip("openai")


def write_rows(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def contents(row: dict[str, Any]) -> list[str]:
    return [message["content"] for message in row["messages"]]


def subjects(recipe: str, **settings: Any) -> list[tuple[str, dict[str, str], str]]:
    model = ModelSettings(endpoint="http://127.0.0.1:9/v1", name="m")
    read = Subjects(SynthesisSettings("out", model, recipe, **settings), read_recipe(recipe))
    return [(each.article.id, dict(each.given), each.article.language) for each in read]


def test_paraphrases_keep_the_answer_and_the_article(start_stub: StartStub, run: Run, tmp_path: Path) -> None:
    rows = [
        {"instruction": "Who rings the bell?", "output": "Ada.", "article_id": "bells"},
        {"instruction": "谁敲钟？", "output": "艾达。"},
    ]
    records = write_rows(tmp_path / "p.jsonl", rows)
    server = start_stub(
        lambda body: '{"paraphrases": [{"paraphrase": "By whom is it rung?"}, {"paraphrase": "The bell: who?"}]}'
    )
    summary = run(server, recipe="paraphrase", records=records, checks=[])
    assert summary["subjects"]["accepted"] == 2
    made = rows_of(tmp_path / "out" / "pairs.jsonl")
    assert [contents(row) for row in made[:2]] == [["By whom is it rung?", "Ada."], ["The bell: who?", "Ada."]]
    assert [row["article_id"] for row in made] == ["bells", "bells", f"{records}:2", f"{records}:2"]
    english_prompt, chinese_prompt = (body["messages"][0]["content"] for body in server.bodies or [])
    assert "Who rings the bell?" in english_prompt + chinese_prompt
    assert {row["provenance"]["language"] for row in made} == {"en", "zh"}


def test_second_turn_reads_the_pairs_of_an_earlier_synthesis_and_their_articles(
    start_stub: StartStub, run: Run, tmp_path: Path
) -> None:
    articles = write_articles(tmp_path / "a.jsonl", [english(0), english(1)])
    run(start_stub(), articles=articles, output=str(tmp_path / "first"))
    server = start_stub(lambda body: '{"next_question": "And then?", "next_answer": "Nothing."}')
    pairs = str(tmp_path / "first" / "pairs.jsonl")
    summary = run(server, recipe="second_turn", articles=articles, records=pairs, checks=[])
    assert summary["subjects"]["accepted"] == summary["pairs"]["accepted"] == 8
    first, *_, last = rows_of(tmp_path / "out" / "pairs.jsonl")
    assert contents(first) == ["When was the Alder room 0 painted?", "It was in 1700.", "And then?", "Nothing."]
    assert (last["article_id"], last["provenance"]["span"]) == ("house 1", [0, len(english(1))])
    prompts = [body["messages"][0]["content"] for body in server.bodies or []]
    assert sum(english(0) in prompt for prompt in prompts) == sum(english(1) in prompt for prompt in prompts) == 4
    assert summary["unused_fields"] == {}


def test_questions_are_answered_line_by_line(start_stub: StartStub, run: Run, tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_text("Who rings the bell?\n谁敲钟？\n", encoding="utf-8")
    server = start_stub(lambda body: '{"answer": "Ada."}')
    run(server, recipe="answers", records=str(tmp_path / "q.txt"), checks=[])
    made = [contents(row) for row in rows_of(tmp_path / "out" / "pairs.jsonl")]
    assert made == [["Who rings the bell?", "Ada."], ["谁敲钟？", "Ada."]]


def test_a_question_may_have_an_answer_that_is_not_shown(tmp_path: Path) -> None:
    rows = [{"instruction": "Add.", "input": "1 and 2", "output": "3"}, {"instruction": "Subtract."}]
    found = subjects("answers", records=write_rows(tmp_path / "q.jsonl", rows))
    assert [given for _, given, _ in found] == [
        {"article": "", "question": "Add.\n\n1 and 2"},
        {"article": "", "question": "Subtract."},
    ]


def test_seed_tasks_are_drawn_anew_for_every_request(start_stub: StartStub, run: Run, tmp_path: Path) -> None:
    rows = [{"instruction": f"Task number {n}.", "output": f"Result {n}."} for n in range(20)]
    records = write_rows(tmp_path / "seeds.jsonl", rows)
    found = subjects("self_instruct", records=records, requests=30)
    shown = [given["examples"] for _, given, _ in found]
    assert len(set(shown)) == 30
    assert all(text.count("\n---\nResult ") == 4 for text in shown)
    assert subjects("self_instruct", records=records, requests=30) == found
    assert subjects("self_instruct", records=records, requests=30, seed=1) != found
    server = start_stub(lambda body: '{"tasks": [{"task": "a b c", "result": "d"}, {"task": "e", "result": "f"}]}')
    summary = run(server, recipe="self_instruct", records=records, requests=3, checks=[])
    assert (summary["subjects"]["accepted"], summary["pairs"]["accepted"]) == (3, 6)
    assert {row["article_id"] for row in rows_of(tmp_path / "out" / "pairs.jsonl")} == {
        "seed tasks 1", "seed tasks 2", "seed tasks 3",
    }  # fmt: skip


def test_second_turn_shows_the_part_that_the_pair_was_made_from(
    start_stub: StartStub, run: Run, tmp_path: Path
) -> None:
    text = english(0, facts=13)
    articles = write_articles(tmp_path / "a.jsonl", [text])
    first = str(tmp_path / "first")
    run(start_stub(), articles=articles, max_characters=200, long_articles="split", output=first)
    pairs = rows_of(tmp_path / "first" / "pairs.jsonl")
    records = str(tmp_path / "first" / "pairs.jsonl")
    server = start_stub(lambda body: '{"next_question": "And then?", "next_answer": "Nothing."}')
    run(server, {"concurrency": 1}, recipe="second_turn", articles=articles, records=records, checks=[])
    made = rows_of(tmp_path / "out" / "pairs.jsonl")
    spans = [row["provenance"]["span"] for row in pairs]
    assert len(made) == 13
    assert len(set(map(tuple, spans))) == 3
    assert [row["provenance"]["span"] for row in made] == spans
    prompts = [body["messages"][0]["content"].split("<article>\n")[1] for body in server.bodies or []]
    assert [prompt.partition("\n</article>")[0] for prompt in prompts] == [text[start:stop] for start, stop in spans]
    assert made[5]["provenance"]["origin"] == f"{articles}:1"
    assert made[5]["provenance"]["record"] == f"{records}:6"


def test_articles_with_one_id_are_told_apart_by_where_they_were_read(
    start_stub: StartStub, run: Run, tmp_path: Path
) -> None:
    rows = [{"text": english(n), "article_id": "house"} for n in (0, 1)]
    articles = write_rows(tmp_path / "a.jsonl", rows)
    run(start_stub(), articles=articles, output=str(tmp_path / "first"))
    pairs = str(tmp_path / "first" / "pairs.jsonl")
    found = subjects("second_turn", records=pairs, articles=articles)
    assert [given["article"] for _, given, _ in found] == [english(0)] * 4 + [english(1)] * 4
    bare = [{"instruction": "Who?", "output": "Ada.", "article_id": "house"}]
    records = write_rows(tmp_path / "p.jsonl", bare)
    with pytest.raises(UserError, match=r"p\.jsonl:1: several articles have the article_id 'house', and nothing says"):
        subjects("second_turn", records=records, articles=articles)


def test_paraphrases_know_the_article_of_their_pair(start_stub: StartStub, run: Run, tmp_path: Path) -> None:
    articles = write_articles(tmp_path / "a.jsonl", [english(0)])
    run(start_stub(), articles=articles, output=str(tmp_path / "first"))
    server = start_stub(
        lambda body: '{"paraphrases": [{"paraphrase": "By whom is it rung?"}, {"paraphrase": "The bell: who?"}]}'
    )
    pairs = str(tmp_path / "first" / "pairs.jsonl")
    run(server, recipe="paraphrase", records=pairs, checks=[])
    provenance = rows_of(tmp_path / "out" / "pairs.jsonl")[-1]["provenance"]
    assert (provenance["origin"], provenance["record"]) == (f"{articles}:1", f"{pairs}:4")
    assert provenance["span"] == [0, len(english(0))]
    records = write_rows(tmp_path / "p.jsonl", [{"instruction": "Who?", "output": "Ada."}])
    run(server, recipe="paraphrase", records=records, checks=[], output=str(tmp_path / "bare"))
    assert "span" not in rows_of(tmp_path / "bare" / "pairs.jsonl")[0]["provenance"]


def test_articles_of_one_name_are_kept_apart() -> None:
    with Articles() as articles:
        for name, text, origin in (("a", "One.\nTwo.", "f:1"), ("b", "钟", "f:2"), ("a", "Three.", "f:3")):
            articles.add(name, text, origin)
        articles.add("b", "钟", "f:4")
        places = [("a", "f:1"), ("a", "f:3"), ("b", "f:4"), ("b", ""), ("c", "f:1")]
        assert [articles.get(*place) for place in places] == [
            ("One.\nTwo.", "f:1"), ("Three.", "f:3"), ("钟", "f:2"), ("钟", "f:2"), None,
        ]  # fmt: skip
        with pytest.raises(UserError, match="several articles have the article_id 'a'"):
            articles.get("a", "g:1")
