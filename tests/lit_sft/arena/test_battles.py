"""Blind comparisons and their votes."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest

from data_modules.errors import UserError
from lit_sft.arena.ballots import read_ballots
from lit_sft.arena.battles import Draw, VoteFile, begin_battle
from lit_sft.arena.page_parts import vote_status
from lit_sft.models.generation import GenerationSettings
from lit_sft.votes import Message, append_vote, read_votes
from tests.lit_sft.arena.make_votes import vote
from tests.lit_sft.arena.scripted import ScriptedPlayer

SETTINGS = GenerationSettings(64, 0.7, 0.95)
A, B, C = (ScriptedPlayer(name) for name in "abc")


@pytest.mark.parametrize("seed", range(5))
def test_sides_are_balanced_over_200_votes(seed: int) -> None:
    draw = Draw([A, B, C], random.Random(seed))
    drawn = Counter(tuple(player.name for player in draw.next()) for _ in range(200))
    assert set(drawn) == set(permutations("abc", 2))
    for one, other in ("ab", "ac", "bc"):
        num_met = drawn[one, other] + drawn[other, one]
        assert 45 <= num_met <= 90
        # coins would be off by 8 or more in a third of the cases
        assert abs(drawn[one, other] - drawn[other, one]) <= 10
    assert abs(sum(drawn["a", other] for other in "bc") - sum(drawn[other, "a"] for other in "bc")) <= 14


def test_sides_cannot_be_predicted_from_the_sides_before() -> None:
    draw, guessed, before = Draw([A, B], random.Random(1)), 0, Counter[str]()
    for _ in range(2000):
        guess = min("ab", key=lambda name: before[name])
        left, _ = draw.next()
        guessed += left.name == guess
        before[left.name] += 1
    assert guessed / 2000 < 0.56


def test_a_vote_has_everything_that_ratings_need(tmp_path: Path) -> None:
    battle = begin_battle("Where do hedgehogs sleep?", (A, B), SETTINGS, (3, 4), " Be brief. ")
    assert VoteFile(tmp_path / "new" / "votes.jsonl").add(battle, "right", "anna")
    (read,) = read_votes(tmp_path / "new" / "votes.jsonl", pytest.fail)
    assert read.is_blind
    assert (read.winner, read.voter.kind, read.voter.name) == ("right", "person", "anna")
    assert read.prompt == (Message("system", "Be brief."), Message("user", "Where do hedgehogs sleep?"))
    assert (read.left.model, read.left.answer, read.left.seed) == ("a", "Where do hedgehogs sleep? says 3", 3)
    assert (read.right.model, read.right.digest, read.right.seed) == ("b", "digest of b", 4)
    assert read.left.sampling == {"max_new_tokens": 64, "temperature": 0.7, "top_p": 0.95}
    (comparisons,) = read_ballots([tmp_path / "new" / "votes.jsonl"]).groups.values()
    assert comparisons.players == ("a", "b")


def test_there_is_one_vote_for_each_comparison(tmp_path: Path) -> None:
    votes = VoteFile(tmp_path / "votes.jsonl")
    battle = begin_battle("Who?", (A, B), SETTINGS, (0, 0), "")
    assert votes.add(battle, "left", "anna")
    assert not votes.add(battle, "right", "anna")
    assert (battle.winner, votes.count()) == ("left", (1, 0))
    assert len((tmp_path / "votes.jsonl").read_text().splitlines()) == 1


def test_unfinished_and_failed_answers_are_not_voted_on(tmp_path: Path) -> None:
    votes, slow, failing = VoteFile(tmp_path / "votes.jsonl"), ScriptedPlayer("s", is_paused=True), ScriptedPlayer("f")
    battle = begin_battle("Who?", (A, slow), SETTINGS, (0, 0), "")
    assert not votes.add(battle, "left", "anna")
    battle.answers[1].stop()
    assert votes.add(battle, "left", "anna"), "a stopped answer is voted on as it was shown"
    (read,) = read_votes(tmp_path / "votes.jsonl", pytest.fail)
    assert (read.left.ending, read.right.ending) == ("complete", "stopped")
    slow.go.set()
    failing.error = "out of memory"
    assert not votes.add(begin_battle("Who?", (A, failing), SETTINGS, (0, 0), ""), "left", "anna")
    assert votes.count() == (1, 0)


def test_a_vote_that_cannot_be_written_is_not_counted(tmp_path: Path) -> None:
    votes = VoteFile(tmp_path / "votes.jsonl")
    battle = begin_battle("Who?", (A, B), SETTINGS, (0, 0), "")
    (tmp_path / "votes.jsonl").mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        votes.add(battle, "left", "anna")
    assert battle.winner is None
    (tmp_path / "votes.jsonl").rmdir()
    assert votes.count() == (0, 0)
    assert votes.add(battle, "left", "anna")


def test_votes_are_added_to_a_file_that_exists(tmp_path: Path) -> None:
    append_vote(tmp_path / "votes.jsonl", vote())
    assert VoteFile(tmp_path / "votes.jsonl").count() == (1, 0)
    (tmp_path / "other.jsonl").write_text('{"prompt": "Who?"}\n')
    with pytest.raises(UserError, match=r"other.jsonl:1: .*format"):
        VoteFile(tmp_path / "other.jsonl")
    with pytest.raises(UserError, match=r"--votes .*: cannot be written \(.*\); choose another file."):
        VoteFile(tmp_path)
    with pytest.raises(UserError, match=r"--votes .*: .*other.jsonl is not a folder; choose another."):
        VoteFile(tmp_path / "other.jsonl" / "votes.jsonl")


def test_there_is_no_file_before_the_first_vote(tmp_path: Path) -> None:
    """A chat with one model leaves nothing behind."""
    votes = VoteFile(tmp_path / "new" / "votes.jsonl")
    assert (votes.count(), [*tmp_path.iterdir()]) == ((0, 0), [])
    assert votes.add(begin_battle("Who?", (A, B), SETTINGS, (0, 0), ""), "left", "anna")
    assert len(list(read_votes(tmp_path / "new" / "votes.jsonl", pytest.fail))) == 1


def test_votes_are_counted_in_the_file_and_not_from_memory(tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    one, other = VoteFile(path), VoteFile(path)
    mine, theirs = (begin_battle("Who?", (A, B), SETTINGS, (0, 0), "") for _ in range(2))
    assert one.add(mine, "left", "anna")
    assert other.add(theirs, "tie", "ben")
    assert "It is saved" in vote_status(mine, one)
    assert one.count() == other.count() == (2, 0)
    with path.open("a") as stream:  # as a process leaves it that is still writing, or was killed
        stream.write('{"id": "half')
    assert one.count() == (2, 0)
    third = begin_battle("Who?", (A, B), SETTINGS, (0, 0), "")
    assert other.add(third, "tie", "ben")
    assert one.count() == other.count() == (3, 0)
    assert "has 3 votes." in vote_status(mine, one)
    append_vote(path, replace(next(read_votes(path, pytest.fail)), winner="tie"))
    assert one.count() == (3, 0), "a later vote with the same id replaces an earlier one"


def test_a_voter_learns_that_the_file_was_removed(tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    for _ in range(2):
        append_vote(path, vote())
    votes = VoteFile(path)
    before, after = (begin_battle("Who?", (A, B), SETTINGS, (0, 0), "") for _ in range(2))
    assert votes.add(before, "left", "anna")
    assert "has 2 votes.<" in vote_status(before, votes)
    path.unlink()
    assert "is gone or empty" in vote_status(before, votes)
    assert votes.add(after, "left", "anna")
    assert "has 1 vote. 2 votes that it had before are gone" in vote_status(after, votes)
    path.write_bytes(b"")
    assert "is gone or empty" in vote_status(after, votes)
