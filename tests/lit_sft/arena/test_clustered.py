"""Intervals: they cover the truth, also when votes of a voter are alike, and do not shrink when votes are repeated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lit_sft.arena.bradley_terry import EFFECTS, Fit, fit
from lit_sft.arena.clustered import clusters_of, estimates
from lit_sft.arena.comparisons import Comparisons
from lit_sft.reporting.statistics import Estimate
from tests.lit_sft.arena.simulated import World, coverage
from tests.lit_sft.arena.test_bradley_terry import comparisons

TASTES = World(
    votes=300, voters=12, prompts=50, taste_of_voters=0.2, taste_of_prompts=0.2, side_of_voters=0.1, balance=0.5
)


def intervals(votes: Comparisons) -> tuple[Fit, list[Estimate]]:
    found = fit(votes)
    return found, estimates(found, found.rating_contrasts(), clusters_of(votes), 0.95)


def errors(votes: Comparisons) -> list[float]:
    return [each.standard_error for each in intervals(votes)[1]]


def at(votes: Comparisons, chosen: np.ndarray) -> Comparisons:
    columns = ("left", "right", "outcome", "length", "voter", "prompt", "is_bad")
    return replace(votes, **{name: getattr(votes, name)[chosen] for name in columns})


def test_intervals_cover_the_truth_only_if_votes_of_voters_and_prompts_may_be_alike() -> None:
    shares = coverage(TASTES, 70)
    assert all(0.92 <= share <= 1 for share in shares)
    assert shares[0] <= 0.98
    assert coverage(TASTES, 30, clustered=False)[0] < 0.85


def test_repeating_every_vote_does_not_narrow_the_intervals() -> None:
    votes = TASTES.draw(0)
    repeated = at(votes, np.repeat(np.arange(len(votes)), 5))
    np.testing.assert_allclose(errors(repeated), errors(votes), rtol=2e-3)  # the prior counts once


def test_the_order_of_votes_and_the_numbers_of_voters_do_not_matter() -> None:
    votes = TASTES.draw(0)
    shuffled = at(votes, np.random.default_rng(0).permutation(len(votes)))
    other = replace(shuffled, voter=1000 - 7 * shuffled.voter, prompt=3 * shuffled.prompt)
    np.testing.assert_allclose(errors(other), errors(votes), rtol=1e-9)


def test_the_jackknife_is_close_to_one_that_fits_again_without_each_voter() -> None:
    votes = replace(TASTES.draw(3), prompt=np.zeros(300, dtype=np.int64))  # clustered by voter only
    found, shown = intervals(votes)
    without = np.stack([fit(at(votes, votes.voter != voter)).ratings for voter in np.unique(votes.voter)])
    num = len(without)
    expected = np.sqrt((num - 1) / num * ((without - found.ratings) ** 2).sum(axis=0))
    np.testing.assert_allclose([each.standard_error for each in shown], expected, rtol=0.1)


def test_clusters_without_influence_are_treated_like_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    votes = replace(TASTES, votes=2000, prompts=2000).draw(0)
    approximate = errors(votes)
    monkeypatch.setattr("lit_sft.arena.clustered._SMALL_LEVERAGE", 0.0)
    np.testing.assert_allclose(approximate, errors(votes), rtol=0.01)


def test_one_voter_and_one_prompt_leave_votes_as_the_only_clusters() -> None:
    votes = TASTES.draw(0)
    one = np.zeros(len(votes), dtype=np.int64)
    assert len(clusters_of(votes)) == 3
    ((ids, sign),) = clusters_of(replace(votes, voter=one))
    assert len(np.unique(ids)) == len(np.unique(votes.prompt))
    ((ids, sign),) = clusters_of(replace(votes, voter=one, prompt=one))
    assert sign == 1
    assert len(np.unique(ids)) == len(votes)


def test_a_voter_who_alone_compared_a_model_does_not_break_the_intervals() -> None:
    votes = TASTES.draw(0)
    only = (votes.left == 2) | (votes.right == 2)
    alone = replace(votes, voter=np.where(only, 99, votes.voter))
    assert all(0.01 < error < 10 for error in errors(alone))


def test_few_voters_widen_the_intervals() -> None:
    votes = replace(TASTES, voters=3, taste_of_voters=0.6, balance=0.0).draw(0)
    shown = intervals(votes)[1]
    assert all(each.degrees < 4 for each in shown)


def test_effects_have_intervals_too() -> None:
    votes = World(votes=3000, voters=100, prompts=300, position=0.5, length=0.3).draw(0)
    found = fit(votes, effects=EFFECTS)
    contrasts = np.stack([found.effect_contrast(effect) for effect in EFFECTS])
    for estimate, true in zip(estimates(found, contrasts, clusters_of(votes), 0.95), (0.5, 0.3), strict=True):
        assert estimate.low < true < estimate.high
        assert estimate.p_value < 0.001


def test_votes_that_cancel_out_exactly_are_not_certain() -> None:
    votes = comparisons(*[(0, 1, 1.0), (0, 1, 0.0), (1, 0, 1.0), (1, 0, 0.0)] * 2)
    by_two = replace(votes, voter=np.repeat([0, 1], 4), prompt=np.zeros(8, dtype=np.int64))
    only_ties = comparisons(*[(0, 1, 0.5), (1, 0, 0.5)] * 4)
    for each in (by_two, only_ties):
        found = fit(each, ties="half")
        shown = estimates(found, found.rating_contrasts(), clusters_of(each), 0.95)
        assert all(estimate.half_width > 0.1 for estimate in shown)
        assert all(estimate.p_value > 0.9 for estimate in shown)
