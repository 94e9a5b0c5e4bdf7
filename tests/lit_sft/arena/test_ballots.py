"""Votes from files: who voted, which models they are about, what is left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lit_sft.arena.ballots import read_ballots
from lit_sft.votes import Side, Vote, write_votes
from tests.lit_sft.arena.make_votes import numbered, vote


def written(path: Path, *votes: Vote) -> list[Path]:
    write_votes(path / "votes.jsonl", votes)
    return [path / "votes.jsonl"]


def test_people_and_each_judge_vote_separately(tmp_path: Path) -> None:
    votes = numbered(vote(kind="judge", voter="m"), vote(), vote(voter="bob", winner="both_bad"), vote(winner="right"))
    found = read_ballots(written(tmp_path, *votes)).groups
    assert list(found) == ["people", "judge m"]
    assert found["people"].outcome.tolist() == [1.0, 0.5, 0.0]
    assert found["people"].is_bad.tolist() == [False, True, False]
    assert found["people"].is_tie.tolist() == [False, True, False]
    assert len(np.unique(found["people"].voter)) == 2
    assert found["people"].players == found["judge m"].players == ("a", "b")


def test_voters_can_be_chosen(tmp_path: Path) -> None:
    paths = written(tmp_path, *numbered(vote(kind="judge", voter="m"), vote()))
    found = read_ballots(paths, "judges")
    assert list(found.groups) == ["judge m"]
    assert found.notes == ["1 vote by other voters not counted."]
    with pytest.raises(ValueError, match="no votes by people; expected at least one"):
        read_ballots(written(tmp_path, vote(kind="judge")), "people")


def test_a_later_vote_with_the_same_id_replaces_the_earlier_one(tmp_path: Path) -> None:
    found = read_ballots(written(tmp_path, vote(), vote(winner="right"), vote(id="2")))
    assert found.groups["people"].outcome.tolist() == [0.0, 1.0]
    assert found.notes == ["1 vote replaced by a later one with the same id."]


def test_models_of_one_name_with_different_digests_are_different_players(tmp_path: Path) -> None:
    newer = vote()
    newer = replace(newer, right=replace(newer.right, digest="0123456789abcdef"))
    found = read_ballots(written(tmp_path, *numbered(vote(), newer)))
    assert found.groups["people"].players == ("a", "b (digest-b)", "b (01234567)")
    assert found.notes == ["“b” was 2 different models, which are rated separately."]


def test_half_written_lines_and_votes_that_were_not_blind_are_counted(tmp_path: Path) -> None:
    (path,) = written(tmp_path, replace(vote(), is_blind=False))
    path.write_bytes(path.read_bytes() + b"{half")
    found = read_ballots([path])
    assert len(found.groups["people"]) == 1
    assert found.notes[0].startswith(f"1 half-written line left out; the first: {path}:2: not valid JSON (")
    assert found.notes[1] == "1 vote by voters who knew which model wrote which answer."


def test_answers_that_were_stopped_or_cut_count_and_are_mentioned(tmp_path: Path) -> None:
    stopped = replace(vote(), left=replace(vote().left, ending="stopped"))
    cut = replace(vote(), right=replace(vote().right, ending="cut"))
    found = read_ballots(written(tmp_path, *numbered(vote(), stopped, cut), replace(cut, id="4"), vote(id="4")))
    assert len(found.groups["people"]) == 4
    assert found.notes[1:] == ["2 votes on an answer that was stopped or cut; they count like the others."]


def test_length_is_a_ratio_and_bounded(tmp_path: Path) -> None:
    sides = [("x" * 39, "x" * 9), ("x" * 9, "x" * 39), ("", "x" * 5000), ("谁", "x")]
    votes = [replace(vote(), left=Side("a", one), right=Side("b", other)) for one, other in sides]
    found = read_ballots(written(tmp_path, *numbered(*votes))).groups["people"]
    assert found.length.tolist() == [2.0, -2.0, -4.0, 0.0]


def test_different_sampling_settings_are_counted(tmp_path: Path) -> None:
    warmer = replace(vote(), left=replace(vote().left, sampling={"temperature": 1.0}))
    assert read_ballots(written(tmp_path, *numbered(vote(), warmer))).sampling == {"a": 2, "b": 1}


def test_an_empty_file_has_no_votes(tmp_path: Path) -> None:
    (tmp_path / "votes.jsonl").write_text("\n")
    with pytest.raises(ValueError, match=r"votes\.jsonl: no votes; expected at least one"):
        read_ballots([tmp_path / "votes.jsonl"])
