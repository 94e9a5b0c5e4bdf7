"""Totals add up, whatever the server and the model do."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tests.lit_sft.stub_server import Draw
from tests.lit_sft.synthesis.conftest import Run, StartStub
from tests.lit_sft.synthesis.writer import english, rows_of, write_articles, write_pairs

pytest.importorskip("openai")

SPOILT = (
    lambda text: text[: len(text) // 2],
    lambda text: f"Of course!\n{text}",
    lambda text: text.replace("answer", "reply"),
    lambda text: '{"pairs": []}',
    lambda text: "Q: Who? A: Ada.",
    lambda text: "",
)


def check_totals(summary: dict[str, Any], folder: Path, num_articles: int) -> None:
    articles, pairs = summary["subjects"], summary["pairs"]
    assert articles["read"] == num_articles
    assert articles["read"] == sum(articles[name] for name in ("accepted", "refused", "failed", "not_reached"))
    assert pairs["read"] == pairs["accepted"] + sum(rule["refused"] for rule in summary["rules"])
    assert pairs["refused"] == sum(rule["refused"] for rule in summary["rules"])
    accepted, refused, failed = (rows_of(folder / f"{name}.jsonl") for name in ("pairs", "refused", "failed"))
    assert (len(accepted), len(refused), len(failed)) == (pairs["accepted"], pairs["refused"], articles["failed"])
    assert len({row["article_id"] for row in accepted}) == articles["accepted"]
    of_refused = {row["article_id"] for row in refused} - {row["article_id"] for row in accepted}
    assert len(of_refused) == articles["refused"]
    assert sum(summary["failures"].values()) == articles["failed"]
    names = [{row["article_id"] for row in rows} for rows in (accepted, failed)]
    assert names[0].isdisjoint(names[1])
    assert of_refused.isdisjoint(names[1])


@pytest.mark.parametrize("seed", range(4))
def test_totals_add_up_under_faults(seed: int, start_stub: StartStub, run: Run, tmp_path: Path) -> None:
    draw = random.Random(seed)
    rate = draw.choice([0.1, 0.5, 0.9])

    def write(body: dict[str, Any]) -> str:
        own = random.Random(f"{seed} {body}")
        return own.choice(SPOILT)(write_pairs(body)) if own.random() < rate else write_pairs(body)

    faults = {"429": 0.05, "500": 0.05 if seed else 0.9, "drop": 0.05, "cut": 0.05}
    texts = [english(draw.randrange(30)) for _ in range(40)]  # some twice: duplicates
    articles = write_articles(tmp_path / "a.jsonl", texts)
    server = start_stub(write, Draw(seed, faults))
    checks: list[Any] = [{"lengths": {"answer": [1, 4]}}, "grounded", "duplicates"]
    model = {"retries": 1, "structured": "none"}
    summary = run(server, model, articles=articles, checks=checks, attempts=2)
    check_totals(summary, tmp_path / "out", 40)
    if not seed:
        assert summary["subjects"]["not_reached"]  # most requests fail: the endpoint counts as dead
        assert summary["stopped"]
    server.draw = Draw(seed)  # the server recovers, and the same command asks for the rest
    summary = run(server, model, articles=articles, checks=checks, attempts=2)
    check_totals(summary, tmp_path / "out", 40)
    assert summary["subjects"]["not_reached"] == 0
    assert summary["failures"].keys().isdisjoint({"request", "no_reply"})
