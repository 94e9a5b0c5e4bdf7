"""Preference pairs about the bundled village: a right and a wrong answer to each question, the same ones every time."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import build_preferences
import build_world

from data_modules.records.counts import RecordCounts
from data_modules.records.splits import Sources, read_conversations
from tests.documents import ROOT

FACTS = build_world.english_facts() + build_world.chinese_facts()
RIGHT = {fact.answer for fact in FACTS}


def test_every_row_of_the_village_makes_pairs(tmp_path: Path) -> None:
    by_split = build_preferences.pairs_by_split(4)
    assert by_split == build_preferences.pairs_by_split(4)
    for name, pairs in by_split.items():
        given = json.loads((ROOT / "examples" / "world" / f"{name}.json").read_text(encoding="utf-8"))
        asked = Counter((pair["instruction"], pair["input"], pair["chosen"]) for pair in pairs)
        rows = {(row["instruction"], row["input"], row["output"]) for row in given}
        assert rows <= asked.keys() if name == "test" else rows == asked.keys()
        assert set(asked.values()) == ({4} if name == "train" else {1})
        assert len({tuple(pair.values()) for pair in pairs}) == len(pairs)
        assert all(pair["chosen"] != pair["rejected"] for pair in pairs)
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
        read = list(read_conversations("train", Sources({"train": [str(path)]}), RecordCounts()))
        assert all(conversation.rejected for conversation in read)
        assert len(read) == len(pairs)


def test_no_question_is_in_two_splits() -> None:
    asked = [{(p["instruction"], p["input"]) for p in pairs} for pairs in build_preferences.pairs_by_split(1).values()]
    assert [len(questions) for questions in asked] == [799, 76, 340]
    assert len(set.union(*asked)) == 799 + 76 + 340


def test_wrong_answers_are_about_what_was_asked() -> None:
    pairs = build_preferences.pairs_by_split(4)["train"]
    births = [pair for pair in pairs if "was born in" in pair["chosen"] and not pair["input"]]
    assert len(births) > 20
    for pair in births:
        assert pair["chosen"].split()[0] == pair["rejected"].split()[0]
        assert pair["rejected"] not in RIGHT


def test_labels_rate_every_answer_once(tmp_path: Path) -> None:
    pairs = build_preferences.pairs_by_split(4)["train"]
    labels = build_preferences.labels_of(pairs)
    good = {(row["instruction"], row["input"], row["output"]) for row in labels if row["label"]}
    assert good == {(pair["instruction"], pair["input"], pair["chosen"]) for pair in pairs}
    assert len(labels) == len(good) + len({(p["instruction"], p["input"], p["rejected"]) for p in pairs})
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labels), encoding="utf-8")
    read = list(read_conversations("train", Sources({"train": [str(tmp_path / "x.jsonl")]}), RecordCounts()))
    assert sum(conversation.is_answered for conversation in read) == len(good)
    assert all(conversation.is_unpaired for conversation in read)
