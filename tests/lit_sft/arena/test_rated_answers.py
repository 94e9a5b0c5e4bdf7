"""Votes as rated answers: one line per answer, by majority, people before judges."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_modules.records.counts import RecordCounts
from data_modules.records.splits import Sources, read_conversations
from lit_sft.__main__ import main
from lit_sft.arena.preference_pairs import PairCounts
from lit_sft.arena.rated_answers import write_labels
from lit_sft.votes import Vote, write_votes
from tests.lit_sft.arena.make_votes import numbered, vote


def labels(folder: Path, *votes: Vote, **options: Any) -> tuple[dict[str, bool], PairCounts]:
    """The labels by answer."""
    write_votes(folder / "votes.jsonl", numbered(*votes))
    counts = write_labels([folder / "votes.jsonl"], folder / "labels.jsonl", **options)
    rows = map(json.loads, (folder / "labels.jsonl").read_text().splitlines())
    return {row["completion"][0]["content"]: row["label"] for row in rows}, counts


@pytest.mark.parametrize(
    ("winners", "expected"),
    [
        (["left"], {"a answers Who?": True, "b answers Who?": False}),
        (["tie"], {"a answers Who?": True, "b answers Who?": True}),
        (["both_bad"], {"a answers Who?": False, "b answers Who?": False}),
        (["right", "tie", "tie"], {"a answers Who?": True, "b answers Who?": True}),
        (["left", "both_bad"], {"b answers Who?": False}),
    ],
)
def test_the_majority_decides_about_each_answer(tmp_path: Path, winners: list[Any], expected: dict[str, bool]) -> None:
    found, counts = labels(tmp_path, *(vote(winner=winner) for winner in winners))
    assert found == expected
    assert counts == PairCounts(len(expected), {"as often good as bad": 1} if len(expected) == 1 else {})


def test_an_answer_is_counted_against_all_others(tmp_path: Path) -> None:
    found, _ = labels(tmp_path, vote("a", "b"), vote("c", "a", "right"), vote("a", "c", "right"))
    assert found == {"a answers Who?": True, "b answers Who?": False}


def test_people_overrule_judges(tmp_path: Path) -> None:
    votes = [vote(), *[vote(winner="right", kind="judge")] * 3]
    assert labels(tmp_path, *votes)[0]["a answers Who?"]
    assert not labels(tmp_path, *votes, voters="judges")[0]["a answers Who?"]


def test_unfinished_and_empty_answers_are_left_out(tmp_path: Path) -> None:
    half, empty = vote(), vote(prompt="What?")
    half = replace(half, left=replace(half.left, ending="cut"))
    empty = replace(empty, left=replace(empty.left, answer=" \n"))
    found, counts = labels(tmp_path, half, empty)
    assert found == {"b answers Who?": False, "b answers What?": False}
    assert counts.left_out == {"the answer was stopped or cut": 1, "the answer is empty": 1}


def test_the_command_writes_what_training_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_votes(tmp_path / "votes.jsonl", numbered(vote(), vote(prompt="What?", winner="both_bad")))
    for _ in range(2):  # over the earlier file
        main(["ratings", "votes.jsonl", "--labels", "labels.jsonl"])
    counts = RecordCounts()
    read = list(read_conversations("train", Sources({"train": ["labels.jsonl"]}), counts))
    assert [conversation.is_answered for conversation in read] == [True, False, False, False]
    assert all(conversation.is_unpaired for conversation in read)
    assert not counts.unknown_fields
