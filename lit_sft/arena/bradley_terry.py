"""The Bradley-Terry model with ties, a position effect and a length effect, fitted by maximum likelihood.

With u the rating of the left player minus that of the right one, plus the effects, the probabilities of left, tie and
right are proportional to exp(u / 2), v and exp(-u / 2); the odds of left against right are exp(u). Without ties this is
Bradley and Terry's model. A tie can also count as half a win, as in Elo ratings.

Source: R. R. Davidson, "On extending the Bradley-Terry model to accommodate ties" (1970); R. R. Davidson and
R. J. Beaver, "On extending the Bradley-Terry model to incorporate within-pair order effects" (1977).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_matrix, diags, hstack
from scipy.special import expit

from lit_sft.arena.comparisons import TIE, Comparisons, Floats

TieModel = Literal["davidson", "half"]
"""How ties count: as an outcome with its own parameter, or as half a win for each."""

Effect = Literal["position", "length"]

EFFECTS: tuple[Effect, ...] = ("position", "length")

_PRECISION = 0.01
"""Of a normal prior on effects (in logits), so that they stay finite even if, say, the left answer always wins."""

_SMALLEST_REST = 1e-6
"""Of an effect's variance, the share that ratings may leave unexplained if it is to be estimated."""

_MOST_STEPS = 200


@dataclass(frozen=True)
class Terms:
    """Likelihood of N votes and its derivatives by k linear predictors: u, and the logarithm of v if there are ties.

    Attributes:
        likelihood: Sum of the logarithms.
        gradient: (N, k).
        weight: (N, k, k) Expected second derivatives, negated.
    """

    likelihood: float
    gradient: Floats
    weight: Floats


@dataclass(frozen=True)
class Fit:
    """A fitted model with q parameters: the ratings of all players but the last (which is 0), the effects, log v.

    Attributes:
        players: Names.
        effects: The effects that were estimated.
        has_ties: Whether log v is a parameter.
        values: (q,) The estimates.
        design: (N, q) sparse. The parameters' coefficients in u.
        terms: The derivatives at the estimates.
        information: (q, q) The negated second derivatives of the log-likelihood and the prior.
    """

    players: tuple[str, ...]
    effects: tuple[Effect, ...]
    has_ties: bool
    values: Floats
    design: Any
    terms: Terms
    information: Floats

    @property
    def ratings(self) -> Floats:
        """(P,) In logits, with a mean of 0."""
        return np.asarray(self.rating_contrasts() @ self.values)

    def effect(self, name: Effect) -> float:
        """The estimate of an effect, in logits."""
        return float(self.values[self._place(name)])

    def rating_contrasts(self) -> Floats:
        """(P, q) The coefficients that turn parameters into ratings with a mean of 0."""
        size = len(self.players)
        contrasts = np.zeros((size, len(self.values)))
        contrasts[:, : size - 1] = np.eye(size)[:, : size - 1] - 1 / size
        return contrasts

    def effect_contrast(self, name: Effect) -> Floats:
        """(q,) The coefficients that select an effect."""
        return np.asarray(np.eye(len(self.values))[self._place(name)])

    def scores(self) -> Any:
        """(N, q) sparse. What each vote adds to the gradient of the log-likelihood."""
        scores = diags(self.terms.gradient[:, 0]) @ self.design
        if self.has_ties:
            scores = scores + _last_column(self.terms.gradient[:, 1], len(self.values))
        return csr_matrix(scores)

    def _place(self, name: Effect) -> int:
        return len(self.players) - 1 + self.effects.index(name)


def fit(comparisons: Comparisons, *, ties: TieModel = "davidson", effects: Sequence[Effect] = ("position",)) -> Fit:
    """Fit the model.

    Args:
        comparisons: Votes between players for whom finite ratings exist; see `ratable_groups`.
        ties: How ties count.
        effects: To be estimated. Effects that the votes cannot tell from ratings are left out.

    Raises:
        ValueError: If there are fewer than two players.
        ArithmeticError: If the likelihood has no maximum.
    """
    if len(comparisons.players) < 2:
        raise ValueError(f"expected at least two players; got {len(comparisons.players)}.")
    found = estimable_effects(comparisons, effects)
    has_ties = ties == "davidson" and bool(comparisons.is_tie.any())
    design = _design(comparisons, found)
    if has_ties:
        design = csr_matrix(hstack([design, csr_matrix((len(comparisons), 1))]))
    num_ratings = len(comparisons.players) - 1
    prior = np.zeros(design.shape[1])
    prior[num_ratings : num_ratings + len(found)] = _PRECISION
    values = _maximum(comparisons.outcome, design, has_ties, prior)
    terms = _terms(comparisons.outcome, design, has_ties, values)
    return Fit(comparisons.players, found, has_ties, values, design, terms, _information(design, terms, prior))


def estimable_effects(comparisons: Comparisons, effects: Sequence[Effect]) -> tuple[Effect, ...]:
    """The effects that can be told from ratings: not the position if one player was always on the left."""
    found: list[Effect] = []
    for effect in effects:
        design = _design(comparisons, (*found, effect))
        gram = (design.T @ design).toarray()
        size, cross, rest = gram[-1, -1], gram[:-1, -1], gram[:-1, :-1]
        explained = cross @ np.linalg.lstsq(rest, cross, rcond=1e-10)[0]
        if size - explained > _SMALLEST_REST * size:
            found.append(effect)
    return tuple(found)


def _design(comparisons: Comparisons, effects: Sequence[Effect]) -> Any:
    size, num = len(comparisons), len(comparisons.players)
    columns = {"position": np.ones(size), "length": comparisons.length}
    votes = np.arange(size)
    rows = np.concatenate([votes, votes, *(votes for _ in effects)])
    places = [comparisons.left, comparisons.right, *(np.full(size, num + place) for place in range(len(effects)))]
    values = np.concatenate([np.ones(size), -np.ones(size), *(columns[effect] for effect in effects)])
    whole = csr_matrix((values, (rows, np.concatenate(places))), shape=(size, num + len(effects)))
    return whole[:, [*range(num - 1), *range(num, num + len(effects))]]  # the last player's rating is 0


def _maximum(outcome: Floats, design: Any, has_ties: bool, prior: Floats) -> Floats:
    """Maximise the log-likelihood plus the prior by Newton's method, halving steps that overshoot."""
    values = np.zeros(design.shape[1])
    terms = _terms(outcome, design, has_ties, values)
    for _ in range(_MOST_STEPS):
        gradient = _gradient(design, terms) - prior * values
        step = cho_solve(cho_factor(_information(design, terms, prior)), gradient)
        goal, size = terms.likelihood - prior @ values**2 / 2, 1.0
        while True:
            tried = values + size * step
            terms = _terms(outcome, design, has_ties, tried)
            if terms.likelihood - prior @ tried**2 / 2 >= goal - 1e-12 * abs(goal) or size < 1e-6:
                break
            size /= 2
        values = tried
        if np.abs(size * step).max() < 1e-10:
            return np.asarray(values)
    raise ArithmeticError(f"no maximum after {_MOST_STEPS} steps; the largest value is {np.abs(values).max():.3g}.")


def _terms(outcome: Floats, design: Any, has_ties: bool, values: Floats) -> Terms:
    u = design @ values
    return _with_ties(outcome, u, values[-1]) if has_ties else _without_ties(outcome, u)


def _without_ties(outcome: Floats, u: Floats) -> Terms:
    left = expit(u)
    likelihood = float((outcome * u - np.logaddexp(0, u)).sum())
    return Terms(likelihood, (outcome - left)[:, None], (left * (1 - left))[:, None, None])


def _with_ties(outcome: Floats, u: Floats, log_v: float) -> Terms:
    logits = np.stack([u / 2, -u / 2, np.full_like(u, log_v)])
    total = np.logaddexp.reduce(logits, axis=0)
    left, right, tie = np.exp(logits - total)
    is_tie = outcome == TIE
    chosen = np.where(is_tie, log_v, (2 * outcome - 1) * u / 2)
    ahead = (left - right) / 2
    gradient = np.stack([outcome - 0.5 - ahead, is_tie - tie], axis=1)
    mixed = -ahead * tie
    weight = np.stack([(left + right) / 4 - ahead**2, mixed, mixed, tie * (1 - tie)], axis=1).reshape(-1, 2, 2)
    return Terms(float((chosen - total).sum()), gradient, weight)


def _gradient(design: Any, terms: Terms) -> Floats:
    gradient = np.asarray(design.T @ terms.gradient[:, 0])
    if terms.gradient.shape[1] == 2:
        gradient[-1] += terms.gradient[:, 1].sum()
    return gradient


def _information(design: Any, terms: Terms, prior: Floats) -> Floats:
    information = np.asarray((design.T @ diags(terms.weight[:, 0, 0]) @ design).toarray())
    if terms.gradient.shape[1] == 2:
        mixed = design.T @ terms.weight[:, 0, 1]
        information[-1] += mixed
        information[:, -1] += mixed
        information[-1, -1] += terms.weight[:, 1, 1].sum()
    return np.asarray(information + np.diag(prior))


def _last_column(column: Floats, width: int) -> Any:
    size = len(column)
    return csr_matrix((column, (np.arange(size), np.full(size, width - 1))), shape=(size, width))
