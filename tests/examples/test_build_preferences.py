"""Preference pairs about the bundled village: a right and a wrong answer to each question, the same ones every time."""

from __future__ import annotations

import json
from pathlib import Path

import build_preferences
import build_world

from data_modules.records.counts import RecordCounts
from data_modules.records.splits import Sources, read_conversations
from tests.documents import ROOT

FACTS = build_world.english_facts() + build_world.chinese_facts()
RIGHT = {fact.answer for fact in FACTS}


def test_every_row_of_the_village_makes_a_pair(tmp_path: Path) -> None:
    for name, rows in build_world.split(FACTS).items():
        pairs = build_preferences.pairs_of(rows, FACTS)
        given = json.loads((ROOT / "examples" / "world" / f"{name}.json").read_text(encoding="utf-8"))
        assert sorted((p["instruction"], p["input"], p["chosen"]) for p in pairs) == sorted(
            (row["instruction"], row["input"], row["output"]) for row in given
        )
        assert all(pair["chosen"] != pair["rejected"] for pair in pairs)
        assert pairs == build_preferences.pairs_of(rows, FACTS)
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
        read = list(read_conversations("train", Sources({"train": [str(path)]}), RecordCounts()))
        assert all(conversation.rejected for conversation in read)
        assert len(read) == len(rows)


def test_wrong_answers_are_about_what_was_asked() -> None:
    pairs = build_preferences.pairs_of(build_world.split(FACTS)["train"], FACTS)
    births = [pair for pair in pairs if "was born in" in pair["chosen"] and not pair["input"]]
    assert len(births) > 20
    for pair in births:
        assert pair["chosen"].split()[0] == pair["rejected"].split()[0]
        assert pair["rejected"] not in RIGHT
