"""Ratings: who is told apart, who cannot be rated and why, and what is said about it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lit_sft.arena.comparisons import Comparisons
from lit_sft.arena.ratings import Ratings, Record, rate
from lit_sft.arena.ratings_tables import headline, in_words, pairs_table, unrated_table
from tests.lit_sft.arena.simulated import World
from tests.lit_sft.arena.test_bradley_terry import comparisons

CLEAR = World(ratings=(-1.5, 0.0, 1.5), votes=1500, voters=50, prompts=200, balance=0.0)


def test_clear_differences_are_told_apart() -> None:
    found = rate(CLEAR.draw(0))
    assert [player.player for player in found.players] == ["m2", "m1", "m0"]
    assert [player.ranks for player in found.players] == [(1, 1), (2, 2), (3, 3)]
    assert all(pair.is_told_apart for pair in found.pairs)
    assert [(pair.first, pair.second) for pair in found.pairs] == [("m2", "m1"), ("m2", "m0"), ("m1", "m0")]
    lines = in_words({"people": found})
    assert lines[0] == "People, 1,500 votes: “m2” is preferred to all 2 others."
    assert not [line for line in lines if line.startswith("Not yet told apart")]
    assert sum(player.rating.value for player in found.players) == pytest.approx(0, abs=1e-9)


def test_equal_models_are_not_told_apart_and_this_is_said() -> None:
    found = rate(World(ratings=(0.0, 0.0, 0.05), votes=200, position=0.0, length=0.0).draw(0))
    assert not any(pair.is_told_apart for pair in found.pairs)
    assert all(player.ranks == (1, 3) for player in found.players)
    first, second, *_ = in_words({"people": found})
    assert "the best model is not yet known" in first
    assert second.startswith("Not yet told apart: “")
    assert [row[4] for row in pairs_table("people", found).rows] == ["not yet told apart"] * 3


def test_equal_models_are_seldom_told_apart_over_all_pairs_together() -> None:
    world = World(ratings=(0.0,) * 5, votes=200, voters=20, prompts=60, position=0.4, balance=0.3)
    wrong = sum(any(pair.is_told_apart for pair in rate(world.draw(seed)).pairs) for seed in range(20))
    assert wrong <= 3  # 5 % of 20 are expected to err


def test_records_count_wins_losses_ties_and_both_bad_on_either_side() -> None:
    votes = comparisons((0, 1, 1.0), (1, 0, 1.0), (1, 0, 0.0), (0, 1, 0.5), (1, 0, 0.5))
    votes = replace(votes, is_bad=np.array([False, False, False, True, False]))
    found = rate(votes)
    best = found.players[0]
    assert (best.player, best.record) == ("a", Record(wins=2, losses=1, ties=2, both_bad=1))
    assert found.pairs[0].record == best.record
    assert best.record.score == 0.6
    assert (best.num_voters, best.num_prompts) == (5, 5)


def test_a_model_that_only_wins_has_no_rating_and_does_not_change_the_others() -> None:
    both = [(0, 1, 1.0), (0, 1, 0.0), (1, 0, 1.0), (0, 1, 1.0)] * 5
    found = rate(comparisons(*both, (2, 0, 1.0), (1, 2, 0.0), (3, 0, 0.0), (4, 5, 1.0)))
    assert found.unrated == {
        "c": "won 2 votes against the rated models and lost none, so its rating has no upper limit",
        "d": "lost 1 vote against the rated models and won none, so its rating has no lower limit",
        "e": "no votes against the rated models",
        "f": "no votes against the rated models",
    }
    alone = rate(comparisons(*both))
    assert [p.rating.value for p in found.players] == [p.rating.value for p in alone.players]
    assert "Not rated: “c”, “d”, “e”, “f”; see “Not rated”." in in_words({"people": found})
    assert len(unrated_table({"people": found}).rows) == 4


def test_models_that_nobody_can_rate_are_named() -> None:
    found = rate(comparisons((0, 1, 1.0), (0, 1, 1.0), (1, 2, 1.0)))
    assert (found.players, found.pairs) == ([], [])
    (line,) = in_words({"people": found})
    assert line.startswith("People, 3 votes: no model can be rated yet. “a” won 2 votes against the others and lost")
    assert "“b” won 1 vote and lost 2 votes, but each against other models" in line
    assert headline({"people": found}).rows == []


def test_too_few_votes_for_a_model_of_ties_count_them_as_half_wins() -> None:
    found = rate(comparisons(*[(0, 1, 1.0), (1, 0, 0.0), (0, 1, 0.5), (1, 0, 0.5)] * 6))
    assert found.notes[0] == "Too few votes to estimate how likely ties are; each counts as half a win."
    # three quarters of the points are odds of 3 to 1
    assert found.players[0].rating.value - found.players[1].rating.value == pytest.approx(np.log(3))


def test_position_and_length_effects_are_said_only_beyond_noise() -> None:
    strong = rate(replace(CLEAR, position=1.0, length=0.5).draw(0))
    said = [line for line in in_words({"judge m": strong}) if line.startswith("Of two equally good answers")]
    assert len(said) == 2
    assert "the one on the left, or first, wins 7" in said[0]
    assert said[0].endswith("of the votes of judge m, ties excluded.")
    weak = rate(replace(CLEAR, position=0.0, length=0.0).draw(3))
    assert not [line for line in in_words({"people": weak}) if line.startswith("Of two equally")]


def test_ratings_at_equal_length_differ_where_a_model_wins_by_length() -> None:
    votes = replace(CLEAR, ratings=(0.0, 0.0), length=0.0).draw(0)
    longer = np.where(votes.left == 0, 1.0, -1.0) * 1.5 + votes.length * 0.5
    outcome = np.where(np.random.default_rng(0).random(len(votes)) < 1 / (1 + np.exp(-longer)), 1.0, 0.0)
    found = rate(replace(votes, length=longer, outcome=outcome))
    best = found.players[0]
    assert best.player == "m0"
    assert best.rating.value > 0.5
    assert best.at_equal_length is not None
    assert abs(best.at_equal_length.value) < 0.3


def only_of(votes: Comparisons, voter: int) -> Comparisons:
    return replace(votes, voter=np.full(len(votes), voter))


def test_votes_of_one_voter_say_nothing_about_others() -> None:
    votes = CLEAR.draw(0)
    assert rate(only_of(votes, 4)).notes == ["All votes are by one voter; nothing is known about others."]
    mixed = replace(votes, voter=np.where((votes.left == 0) | (votes.right == 0), 99, votes.voter))
    assert rate(mixed).notes == ["Compared by one voter only: “m0”."]


def agreement(people: Ratings, judge: Ratings) -> str:
    return in_words({"people": people, "judge m": judge})[-1]


def test_a_judge_is_compared_with_people_where_both_tell_models_apart() -> None:
    people, opposite = rate(CLEAR.draw(0)), rate(replace(CLEAR, ratings=(-1.5, 1.5, 0.0)).draw(1))
    unsure = rate(World(ratings=(0.0, 0.0, 0.0), votes=60).draw(0))
    assert agreement(people, people) == "Where both tell models apart, judge m agrees with people on 3 of 3 pairs."
    assert agreement(people, opposite) == (
        "Where both tell models apart, judge m agrees with people on 2 of 3 pairs. "
        "The order of “m1” and “m2” is the opposite."
    )
    assert agreement(people, unsure) == (
        "No pair is told apart by both people and judge m, so they cannot be compared yet."
    )
