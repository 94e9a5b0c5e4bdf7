"""The model against a kept library, against plain optimisation, and where votes do not suffice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from lit_sft.arena.bradley_terry import estimable_effects, fit
from lit_sft.arena.comparisons import Comparisons, ratable_groups
from tests.lit_sft.arena.simulated import World

WORLD = World(ratings=(-1.0, -0.4, 0.1, 0.3, 1.0), votes=3000)


def comparisons(*votes: tuple[int, int, float], names: str = "abcdefgh") -> Comparisons:
    left, right, outcome = (np.array(column) for column in zip(*votes, strict=True))
    size, num = len(votes), int(max(left.max(), right.max())) + 1
    nothing = np.zeros(size)
    return Comparisons(
        tuple(names[:num]), left, right, outcome, nothing, np.arange(size), np.arange(size), nothing.astype(bool)
    )


@pytest.mark.parametrize("seed", range(3))
def test_ratings_equal_those_of_evalica(seed: int) -> None:
    evalica = pytest.importorskip("evalica", reason="evalica is not installed (pip install evalica)")
    votes = WORLD.draw(seed)
    winners = [{1.0: evalica.Winner.X, 0.0: evalica.Winner.Y}.get(o, evalica.Winner.Draw) for o in votes.outcome]
    sides = [[votes.players[player] for player in side] for side in (votes.left, votes.right)]
    exact = {"tolerance": 1e-13, "limit": 100_000}
    for ties, theirs in (("half", evalica.bradley_terry), ("davidson", evalica.newman)):
        found = theirs(*sides, winners, **exact)
        expected = np.log([found.scores[name] for name in votes.players])
        ours = fit(votes, ties=ties, effects=())  # type: ignore[arg-type]
        np.testing.assert_allclose(ours.ratings, expected - expected.mean(), atol=1e-9)
        if ties == "davidson":
            assert ours.values[-1] == pytest.approx(np.log(2 * found.v), abs=1e-9)


def test_the_likelihood_has_its_maximum_at_the_estimates() -> None:
    votes = WORLD.draw(7)

    def cost(values: np.ndarray) -> float:
        """The model as its formula has it, vote by vote."""
        ratings, (position, length, log_v) = np.append(values[:4], 0.0), values[4:]
        total = 0.0
        for left, right, outcome, ratio in zip(votes.left, votes.right, votes.outcome, votes.length, strict=True):
            u = ratings[left] - ratings[right] + position + length * ratio
            shares = {1.0: np.exp(u / 2), 0.0: np.exp(-u / 2), 0.5: np.exp(log_v)}
            total -= np.log(shares[outcome] / sum(shares.values()))
        return float(total + 0.01 / 2 * (position**2 + length**2))

    found = fit(votes, effects=("position", "length"))
    best = cost(found.values)
    for place in range(7):
        for change in (-1e-3, 1e-3):
            moved = found.values.copy()
            moved[place] += change
            assert cost(moved) > best
    assert minimize(cost, found.values, method="Nelder-Mead", options={"maxiter": 30}).fun >= best - 1e-6
    np.testing.assert_allclose(found.values[-3:], [0.3, 0.2, -0.7], atol=0.15)


def test_sides_do_not_matter_to_ratings_and_turn_the_effects_round() -> None:
    votes = WORLD.draw(1)
    turned = replace(votes, left=votes.right, right=votes.left, outcome=1 - votes.outcome, length=-votes.length)
    one, other = (fit(each, effects=("position", "length")) for each in (votes, turned))
    np.testing.assert_allclose(one.ratings, other.ratings, atol=1e-9)
    assert other.effect("position") == pytest.approx(-one.effect("position"), abs=1e-9)
    assert other.effect("length") == pytest.approx(one.effect("length"), abs=1e-9)


def test_an_effect_that_votes_cannot_tell_from_ratings_is_left_out() -> None:
    votes = comparisons((0, 1, 1.0), (0, 1, 0.0), (0, 1, 0.5))
    assert estimable_effects(votes, ("position", "length")) == ()
    assert fit(votes).effects == ()
    assert estimable_effects(comparisons((0, 1, 1.0), (1, 0, 0.0)), ("position",)) == ("position",)


def test_a_left_answer_that_always_wins_has_a_large_but_finite_effect() -> None:
    votes = comparisons(*[(0, 1, 1.0), (1, 0, 1.0)] * 50)
    found = fit(votes)
    assert 4 < found.effect("position") < 20
    np.testing.assert_allclose(found.ratings, 0, atol=1e-9)


@pytest.mark.parametrize(
    ("votes", "groups"),
    [
        ([(0, 1, 1.0), (1, 0, 1.0)], [[0, 1]]),
        ([(0, 1, 1.0), (0, 1, 1.0)], [[0], [1]]),
        ([(0, 1, 1.0), (1, 2, 1.0), (2, 0, 1.0)], [[0, 1, 2]]),
        ([(0, 1, 0.5), (2, 1, 0.0)], [[0, 1], [2]]),
        ([(0, 1, 1.0), (1, 0, 1.0), (2, 3, 0.0), (2, 3, 1.0), (3, 2, 0.5)], [[2, 3], [0, 1]]),
    ],
)
def test_finite_ratings_exist_where_everybody_beat_somebody_in_every_part(
    votes: list[tuple[int, int, float]], groups: list[list[int]]
) -> None:
    assert ratable_groups(comparisons(*votes)) == groups


def test_a_single_player_cannot_be_fitted() -> None:
    with pytest.raises(ValueError, match="at least two players; got 1"):
        fit(comparisons((0, 1, 1.0), (1, 0, 1.0)).of_players([0]))
