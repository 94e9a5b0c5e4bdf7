"""Votes as lines of JSON: what is written is read again, and what is wrong is named with its line."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_modules.errors import UserError
from lit_sft.votes import Message, Side, append_vote, now, read_votes, vote_of, write_votes
from tests.lit_sft.arena.make_votes import vote


def test_votes_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    odd = replace(
        vote("a", "b", "both_bad"),
        prompt=(Message("system", ""), Message("user", "谁\u2028\x1b[2J 👩‍👩‍👧")),
        left=Side("a", "", sampling={}, seed=None),
        right=Side("b", "x\r\ny", "0" * 16, {"temperature": 0.0, "stop": ["\n"]}, 0),
        is_blind=False,
        time=now(),
    )
    append_vote(path, vote())
    append_vote(path, odd)
    assert list(read_votes(path, pytest.fail)) == [vote(), odd]
    write_votes(path, [odd])
    assert list(read_votes(path, pytest.fail)) == [odd]
    assert len(path.read_bytes().splitlines()) == 1


def test_a_half_written_last_line_is_reported_and_removed_before_the_next_vote(tmp_path: Path) -> None:
    path, damaged = tmp_path / "votes.jsonl", list[str]()
    append_vote(path, vote())
    with path.open("ab") as stream:
        stream.write('{"format": 1, "id": "é'.encode()[:-1])  # a process was killed here
    assert [each.id for each in read_votes(path, damaged.append)] == ["1"]
    assert len(damaged) == 1
    assert damaged[0].startswith(f"{path}:2: not valid JSON (")
    append_vote(path, vote(id="2"))
    assert [each.id for each in read_votes(path, pytest.fail)] == ["1", "2"]


def test_a_last_vote_without_a_line_break_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    append_vote(path, vote())
    path.write_bytes(path.read_bytes().rstrip(b"\n"))  # as some editors leave it
    append_vote(path, vote(id="2"))
    assert [each.id for each in read_votes(path, pytest.fail)] == ["1", "2"]


def test_processes_that_append_to_one_file_remove_no_votes_of_each_other(tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    path.write_bytes(b'{"format": 1, "id')
    long = replace(vote(), prompt=(Message("user", "x" * 100_000),))

    def append(voter: int) -> None:
        for number in range(10):
            append_vote(path, replace(long, id=f"{voter} {number}"))

    with ThreadPoolExecutor(4) as pool:  # each opens the file anew, as other processes do
        list(pool.map(append, range(4)))
    assert sorted(each.id for each in read_votes(path, pytest.fail)) == [
        f"{a} {b}" for a in range(4) for b in range(10)
    ]


@pytest.mark.parametrize("line", ["{row},", "not JSON", '{{"format": 1, "id"', "\x00", "{row}{row}", "[" * 100_000])
def test_a_line_that_is_not_json_is_named_wherever_it_is(tmp_path: Path, line: str) -> None:
    row = json.dumps(vote().row())
    path, bad = tmp_path / "votes.jsonl", line.format(row=row)
    for number, text in enumerate((f"{bad}\n{row}\n", f"{row}\n{bad}\n{row}", f"{row}\n{row}\n{bad}\n"), start=1):
        path.write_text(text)
        with pytest.raises(
            UserError, match=rf"votes\.jsonl:{number}: not valid JSON \(.*correct the line, or remove it"
        ):
            list(read_votes(path, pytest.fail))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"winner": "a"}, "winner is 'a'; expected left, right, tie or both_bad."),
        ({"winner": None}, "winner is null; expected a string."),
        ({"id": " "}, "id is empty; expected some text."),
        ({"voter": "anna"}, "voter: found the string 'anna'; expected an object with named fields."),
        ({"voter": {"kind": "dog", "name": "x"}}, "voter: kind is 'dog'; expected person or judge."),
        ({"prompt": "Who?"}, "prompt is missing or empty; expected a list of messages."),
        ({"prompt": [{"role": "user"}]}, "prompt[0]: no field 'content'."),
        (
            {"time": "2026-01-31T12:00:00"},
            "time is '2026-01-31T12:00:00'; expected one such as 2026-01-31T12:00:00+00:00.",
        ),
        ({"blind": "yes"}, "blind is missing or not a boolean; expected true or false."),
        ({"format": 2}, "format 2; this version reads format 1."),
        ({"left": vote().row()["right"]}, "'b' is compared with itself; expected two models."),
        ({"left": {"model": "a"}}, "left: no field 'answer'."),
        (
            {"left": vote().row()["left"] | {"ending": "half"}},
            "left: ending is 'half'; expected complete, cut or stopped.",
        ),
    ],
)
def test_a_line_that_is_no_vote_is_named(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    path = tmp_path / "votes.jsonl"
    path.write_text(json.dumps(vote().row()) + "\n" + json.dumps(vote().row() | change) + "\n")
    with pytest.raises(ValueError, match=r"^.*votes\.jsonl:2: ") as raised:
        list(read_votes(path, pytest.fail))
    assert problem in str(raised.value)
    assert str(raised.value).endswith("correct the line, or remove it.")


def test_prompts_are_the_same_whatever_their_white_space_but_not_their_roles() -> None:
    one = vote(prompt="Who?")
    assert one.prompt_key == vote(prompt=" Who?\n").prompt_key
    assert one.prompt_key != vote(prompt="Who??").prompt_key
    assert one.prompt_key != replace(one, prompt=(Message("system", "Who?"),)).prompt_key


def test_how_an_answer_ended_is_written_if_it_is_known(tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    cut = replace(vote(), left=replace(vote().left, ending="cut"), right=replace(vote().right, ending="complete"))
    write_votes(path, [vote(), cut])
    old, new = map(json.loads, path.read_text().splitlines())
    assert ["ending" in old["left"], new["left"]["ending"], new["right"]["ending"]] == [False, "cut", "complete"]
    assert list(read_votes(path, pytest.fail)) == [vote(), cut]
    assert [side.is_unfinished for side in (vote().left, cut.left, cut.right)] == [False, True, False]


def test_optional_fields_may_be_missing() -> None:
    row = vote().row()
    row["left"] = {"model": "a", "answer": "x"}
    assert vote_of(row, "here").left == Side("a", "x")
