"""The checks that `paraphrase` has of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.lit_sft.synthesis.conftest import Run, StartStub
from tests.lit_sft.synthesis.writer import rows_of

pytest.importorskip("openai")

PAIRS = {
    "en": (
        {"instruction": "How high is the Harlow Bridge?", "output": "It is 412 metres high."},
        [
            "What is the height of the Harlow Bridge?",
            "What is the capital of Peru?",
            "What's the height of the Harlow Bridge?",
        ],
    ),
    "zh": (
        {"instruction": "青石桥有多高？", "output": "青石桥高412米。"},
        ["青石桥的高度是多少米？", "秘鲁的首都是哪里？", "请问青石桥的高度是多少米呢？"],
    ),
}
"""A pair, and three other ways to ask it: a good one, one that asks something else, and one that is like a good one."""


@pytest.mark.parametrize("language", PAIRS)
def test_other_questions_and_repetitions_are_refused(
    language: str, start_stub: StartStub, run: Run, tmp_path: Path
) -> None:
    pair, questions = PAIRS[language]
    records = tmp_path / "p.jsonl"
    records.write_text(json.dumps(pair, ensure_ascii=False) + "\n", encoding="utf-8")
    reply = json.dumps({"paraphrases": [{"paraphrase": each} for each in questions]}, ensure_ascii=False)
    run(start_stub(lambda _: reply), recipe="paraphrase", records=str(records), checks=None)
    made = rows_of(tmp_path / "out" / "pairs.jsonl")
    refused = rows_of(tmp_path / "out" / "refused.jsonl")
    assert [row["messages"][0]["content"] for row in made] == questions[:1]
    assert [(row["rule"], row["messages"][0]["content"]) for row in refused] == [
        ("related", questions[1]),
        ("duplicates", questions[2]),
    ]
