"""A synthesis with a judge: its calls are kept and paid for once, and its failures are not refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.lit_sft.synthesis.conftest import Run, StartStub
from tests.lit_sft.synthesis.writer import english, pairs_of, rows_of, write_articles, write_pairs

pytest.importorskip("openai")

CHECKS = ["lengths", "judge", "duplicates"]


def write_and_judge(body: dict[str, Any]) -> str:
    """Writes pairs; as a judge, contradicts the pairs about years that end in 2."""
    text = body["messages"][0]["content"]
    if "Question:" not in text:
        return write_pairs(body)
    question = text.rpartition("Question: ")[2].partition("\n")[0]
    (answer,) = (pair["answer"] for pair in pairs_of(text) if pair["question"] == question)
    return "In 1066." if answer.endswith("2.") else answer


def test_judge_refuses_what_it_answers_differently(start_stub: StartStub, run: Run, tmp_path: Path) -> None:
    server = start_stub(write_and_judge)
    articles = write_articles(tmp_path / "a.jsonl", [english(n) for n in range(5)])
    summary = run(server, {"max_tokens": 1000}, articles=articles, checks=CHECKS)
    assert {body["max_tokens"] for body in server.bodies or []} == {1000}
    refused = rows_of(tmp_path / "out" / "refused.jsonl")
    assert {row["rule"] for row in refused} == {"judge"}
    assert all(row["messages"][1]["content"].endswith("2.") for row in refused)
    assert all("the judge answers with other numbers" in row["reason"] for row in refused)
    assert summary["pairs"] == {"read": 20, "accepted": 18, "refused": 2}
    assert summary["usage"]["calls"] == 5 + 20


def test_judge_is_not_asked_again(start_stub: StartStub, run: Run, tmp_path: Path) -> None:
    articles, server = write_articles(tmp_path / "a.jsonl", [english(n) for n in range(3)]), start_stub(write_and_judge)
    run(server, articles=articles, checks=CHECKS)
    before = (tmp_path / "out" / "pairs.jsonl").read_bytes()
    asked = len(server.bodies or [])
    summary = run(server, articles=articles, checks=CHECKS, offline=True)
    assert len(server.bodies or []) == asked
    assert summary["usage"]["calls"] == 0
    assert (tmp_path / "out" / "pairs.jsonl").read_bytes() == before


def test_other_checks_need_no_call(start_stub: StartStub, run: Run, tmp_path: Path) -> None:
    articles, server = write_articles(tmp_path / "a.jsonl", [english(n) for n in range(3)]), start_stub(write_and_judge)
    first = run(server, articles=articles, checks=CHECKS)
    strict = [{"lengths": {"answer": [9, 300]}}, *CHECKS[1:]]
    second = run(server, articles=articles, checks=strict, offline=True)
    assert first["pairs"]["accepted"] > 0
    assert second["pairs"] == {"read": 12, "accepted": 0, "refused": 12}
    assert {row["rule"] for row in rows_of(tmp_path / "out" / "refused.jsonl")} == {"lengths"}


def test_article_whose_judge_fails_is_not_accepted(start_stub: StartStub, run: Run, tmp_path: Path) -> None:
    def judge_fails(body: dict[str, Any]) -> str:
        return write_and_judge(body) if "Question:" not in body["messages"][0]["content"] else ""

    articles = write_articles(tmp_path / "a.jsonl", [english(n) for n in range(3)])
    summary = run(start_stub(judge_fails), articles=articles, checks=CHECKS)
    assert summary["pairs"]["accepted"] == 0
    assert all("the judge gave no answer" in row["reason"] for row in rows_of(tmp_path / "out" / "refused.jsonl"))


def test_pairs_that_were_not_judged_are_not_reached(start_stub: StartStub, run: Run, tmp_path: Path) -> None:
    articles, server = write_articles(tmp_path / "a.jsonl", [english(n) for n in range(3)]), start_stub(write_and_judge)
    run(server, articles=articles, checks=["lengths"])
    (tmp_path / "out" / "pairs.jsonl").unlink()  # earlier pairs would stay
    summary = run(server, articles=articles, checks=CHECKS, offline=True)
    assert summary["subjects"] == {"read": 3, "accepted": 0, "refused": 0, "failed": 0, "not_reached": 3}
    assert summary["pairs"]["read"] == 0
