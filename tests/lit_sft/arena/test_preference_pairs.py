"""Votes as preference pairs: one per two answers, by majority, people before judges."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lit_sft.arena.preference_pairs import PairCounts, write_pairs
from lit_sft.votes import Message, Vote, write_votes
from tests.lit_sft.arena.make_votes import numbered, vote

NO_MAJORITY = "no majority for one of the answers"


def pairs(folder: Path, *votes: Vote, **options: Any) -> tuple[list[dict[str, Any]], PairCounts]:
    write_votes(folder / "votes.jsonl", numbered(*votes))
    counts = write_pairs([folder / "votes.jsonl"], folder / "pairs.jsonl", **options)
    return [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()], counts


def test_a_pair_has_the_prompt_and_both_answers_whichever_side_they_were_on(tmp_path: Path) -> None:
    context = (Message("system", "Be brief."), Message("user", "Who?"))
    votes = [replace(vote(), prompt=context), replace(vote("b", "a", "right"), prompt=context)]
    rows, counts = pairs(tmp_path, *votes)
    assert rows == [
        {
            "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}],
            "chosen": [{"role": "assistant", "content": "a answers Who?"}],
            "rejected": [{"role": "assistant", "content": "b answers Who?"}],
            "chosen_model": "a",
            "rejected_model": "b",
            "votes": {"chosen": 2, "rejected": 0, "neither": 0},
        }
    ]
    assert counts == PairCounts(1, {})


@pytest.mark.parametrize(
    ("winners", "chosen"),
    [
        (["left", "left", "right"], "a"),
        (["right", "right", "tie"], "b"),
        (["left", "right"], None),
        (["tie"], None),
        (["both_bad", "both_bad", "left"], None),
        (["left", "tie"], None),
    ],
)
def test_the_majority_decides(tmp_path: Path, winners: list[Any], chosen: str | None) -> None:
    rows, counts = pairs(tmp_path, *(vote(winner=winner) for winner in winners))
    assert [row["chosen_model"] for row in rows] == ([chosen] if chosen else [])
    assert counts.left_out == ({} if chosen else {NO_MAJORITY: 1})


def test_people_overrule_judges(tmp_path: Path) -> None:
    votes = [vote(), *[vote(winner="right", kind="judge")] * 3, vote(winner="right", kind="judge", prompt="What?")]
    rows, _ = pairs(tmp_path, *votes)
    assert [row["chosen_model"] for row in rows] == ["a", "b"]
    rows, _ = pairs(tmp_path, *votes, voters="judges")
    assert [row["chosen_model"] for row in rows] == ["b", "b"]


def test_a_vote_that_was_changed_counts_once(tmp_path: Path) -> None:
    write_votes(tmp_path / "votes.jsonl", [vote(), vote(winner="right")])
    write_pairs([tmp_path / "votes.jsonl"], tmp_path / "pairs.jsonl")
    (row,) = map(json.loads, (tmp_path / "pairs.jsonl").read_text().splitlines())
    assert (row["chosen_model"], row["votes"]["rejected"]) == ("b", 0)


@pytest.mark.parametrize("ending", ["stopped", "cut"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_answers_that_were_stopped_or_cut_make_no_pair(tmp_path: Path, ending: Any, side: str) -> None:
    half: Any = {side: replace(getattr(vote(), side), ending=ending)}
    whole = replace(vote(prompt="What?"), left=replace(vote(prompt="What?").left, ending="complete"))
    rows, counts = pairs(tmp_path, vote(), replace(vote(), **half), whole)
    assert [row["prompt"][0]["content"] for row in rows] == ["What?"]
    assert counts.left_out == {"an answer was stopped or cut": 1}


def test_equal_and_empty_answers_make_no_pair(tmp_path: Path) -> None:
    same = replace(vote(), right=replace(vote().right, answer=vote().left.answer))
    empty = replace(vote(prompt="What?"), left=replace(vote().left, answer=" \n"))
    rows, counts = pairs(tmp_path, same, empty)
    assert rows == []
    assert counts.left_out == {"both answers are the same": 1, "the preferred answer is empty": 1}
