"""Recipes about conversations and seed tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lit_sft.synthesis.reading import Articles, Subjects
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
    assert summary["articles"]["accepted"] == 2
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
    assert summary["articles"]["accepted"] == summary["pairs"]["accepted"] == 8
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
    assert (summary["articles"]["accepted"], summary["pairs"]["accepted"]) == (3, 6)
    assert {row["article_id"] for row in rows_of(tmp_path / "out" / "pairs.jsonl")} == {
        "seed tasks 1", "seed tasks 2", "seed tasks 3",
    }  # fmt: skip


def test_pair_whose_article_is_missing_is_dropped(tmp_path: Path) -> None:
    rows = [{"instruction": "Who?", "output": "Ada.", "article_id": name} for name in ("house 0", "house 9")]
    records, articles = write_rows(tmp_path / "p.jsonl", rows), write_articles(tmp_path / "a.jsonl", [english(0)])
    found = subjects("second_turn", records=records, articles=articles, on_invalid="drop")
    assert [name for name, _, _ in found] == ["house 0"]


def test_parts_of_an_article_are_one_article() -> None:
    with Articles() as articles:
        articles.add("a", "One.\nTwo.")
        articles.add("b", "钟")
        articles.add("a", "Three.")
        assert [articles.get(name) for name in ("a", "b", "c")] == ["One.\nTwo.\n\nThree.", "钟", None]
