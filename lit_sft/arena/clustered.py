"""Standard errors when votes of one voter, and votes on one prompt, resemble each other.

The variance over voters is that of estimates which leave out one voter each (a jackknife, with one Newton step instead
of a new fit), and likewise over prompts. Votes count in both, so the variance over all combinations of a voter and a
prompt is subtracted.

Source: A. C. Cameron, J. B. Gelbach, D. L. Miller, "Robust inference with multiway clustering" (2011); J. G. MacKinnon,
M. O. Nielsen, M. D. Webb, "Fast and reliable jackknife and bootstrap methods for cluster-robust inference" (2023).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.sparse import csr_matrix

from lit_sft.arena.bradley_terry import Fit
from lit_sft.arena.comparisons import Comparisons, Floats, Ints
from lit_sft.reporting.statistics import Estimate

_SMALL_LEVERAGE = 0.01
"""Below it, leaving out a cluster hardly changes the information, which is then taken as unchanged."""

_LEAST_LEFT = 1e-3
"""Of the information on any contrast, the share that is assumed to be left without a cluster."""

_LEAST_VARIANCE = 0.1
"""Of the variance if all votes were independent: with a handful of votes, those of a voter may cancel out exactly."""

_CHUNK = 4_000_000
"""Numbers in memory at once."""


def clusters_of(comparisons: Comparisons) -> list[tuple[Ints, float]]:
    """What to sum variances over, with signs: voters, prompts, and their combinations.

    A single voter (such as a judge) or a single prompt says nothing about others, so only the other one counts; with
    one of both, votes count as independent.
    """
    voter, prompt = (np.unique(ids, return_inverse=True)[1] for ids in (comparisons.voter, comparisons.prompt))
    several = [ids for ids in (voter, prompt) if ids.max() > 0]
    if not several:
        return [(np.arange(len(comparisons)), 1.0)]
    if len(several) == 1:
        return [(several[0], 1.0)]
    cells = np.unique(voter * (prompt.max() + 1) + prompt, return_inverse=True)[1]
    return [(voter, 1.0), (prompt, 1.0), (cells, -1.0)]


def estimates(fit: Fit, contrasts: Floats, clusters: list[tuple[Ints, float]], confidence: float) -> list[Estimate]:
    """Estimate linear combinations of the parameters.

    Args:
        fit: The fitted model.
        contrasts: (K, q) One combination per line.
        clusters: As from `clusters_of`.
        confidence: Level of the intervals.
    """
    parts = [(_variances(fit, contrasts, ids), _degrees(fit, contrasts, ids), sign) for ids, sign in clusters]
    values, num = contrasts @ fit.values, fit.design.shape[0]
    independent = np.einsum("kq,qr,kr->k", contrasts, np.linalg.inv(fit.information), contrasts)
    found = []
    for place, value in enumerate(values):
        variance, degrees = _combined([(v[place], d[place], sign) for v, d, sign in parts])
        error = float(np.sqrt(max(variance, _LEAST_VARIANCE * independent[place])))
        found.append(Estimate(float(value), error, degrees, 1, num, confidence))
    return found


def _combined(parts: list[tuple[float, float, float]]) -> tuple[float, float]:
    """The variance, and its degrees of freedom by Satterthwaite's formula."""
    *_, (least, degrees, _) = parts
    total = sum(sign * variance for variance, _, sign in parts)
    if len(parts) == 1 or total <= least:  # voters and prompts cannot make the estimate more certain
        return float(least), float(degrees)
    return float(total), float(total**2 / sum(variance**2 / free for variance, free, _ in parts))


def _variances(fit: Fit, contrasts: Floats, ids: Ints) -> Floats:
    """(K,) The jackknife's variances over clusters."""
    num = int(ids.max()) + 1
    changes = _changes(fit, ids)
    found = np.zeros(len(contrasts))
    for chunk in _chunks(num, len(contrasts)):
        found += ((changes[chunk] @ contrasts.T) ** 2).sum(axis=0)
    return np.asarray(found * (num - 1) / num)


def _changes(fit: Fit, ids: Ints) -> Floats:
    """(G, q) By how much the estimates change if a cluster is left out."""
    root = cholesky(fit.information, lower=True)
    # in these coordinates the whole information is the identity
    rows = solve_triangular(root, fit.design.toarray().T, lower=True).T
    scores = np.asarray((_sums(ids) @ fit.scores()).todense())
    changes = solve_triangular(root, scores.T, lower=True).T
    inverse = solve_triangular(root, np.eye(len(root)), lower=True)
    leverage = _sums(ids) @ _quadratic(fit, inverse).sum(axis=1)
    for chunk, taken in _information_of(fit, rows, inverse[:, -1], ids, np.flatnonzero(leverage > _SMALL_LEVERAGE)):
        values, vectors = np.linalg.eigh(np.eye(len(root)) - taken)
        inverses = vectors / np.maximum(values, _LEAST_LEFT)[:, None, :] @ vectors.transpose(0, 2, 1)
        changes[chunk] = (inverses @ changes[chunk][:, :, None])[:, :, 0]
    return np.asarray(solve_triangular(root.T, changes.T, lower=False).T)


def _information_of(
    fit: Fit, rows: Floats, of_ties: Floats, ids: Ints, clusters: Ints
) -> Iterator[tuple[Ints, Floats]]:
    """The (., q, q) information in each of some clusters, in chunks."""
    order = np.argsort(ids, kind="stable")
    bounds = np.searchsorted(ids[order], np.arange(ids.max() + 2))
    for chunk in _chunks(len(clusters), rows.shape[1] ** 2):
        found = [
            _information_in(fit, rows, of_ties, order[bounds[each] : bounds[each + 1]]) for each in clusters[chunk]
        ]
        yield clusters[chunk], np.array(found).reshape(-1, rows.shape[1], rows.shape[1])


def _information_in(fit: Fit, rows: Floats, of_ties: Floats, votes: Ints) -> Floats:
    own, weight = rows[votes], fit.terms.weight[votes]
    information = (own.T * weight[:, 0, 0]) @ own
    if fit.has_ties:
        mixed = np.outer(weight[:, 0, 1] @ own, of_ties)
        information += mixed + mixed.T + weight[:, 1, 1].sum() * np.outer(of_ties, of_ties)
    return np.asarray(information)


def _degrees(fit: Fit, contrasts: Floats, ids: Ints) -> Floats:
    """(K,) Degrees of freedom: less than the number of clusters if a few hold most of the information."""
    found = []
    combinations = contrasts @ np.linalg.inv(fit.information)
    for chunk in _chunks(len(contrasts), fit.design.shape[0]):
        shares = _sums(ids) @ _quadratic(fit, combinations[chunk])
        found.append(shares.sum(axis=0) ** 2 / (shares**2).sum(axis=0) - 1)
    return np.asarray(np.maximum(np.concatenate(found), 1.0))


def _quadratic(fit: Fit, combinations: Floats) -> Floats:
    """(N, K) The information that each vote has on combinations of the parameters."""
    along, weight = fit.design @ combinations.T, fit.terms.weight
    found = weight[:, :1, 0] * along**2
    if fit.has_ties:
        of_ties = combinations[:, -1]
        found = found + 2 * weight[:, :1, 1] * along * of_ties + weight[:, 1:, 1] * of_ties**2
    return np.asarray(found)


def _sums(ids: Ints) -> Any:
    """(G, N) sparse. Sums over clusters."""
    num = len(ids)
    return csr_matrix((np.ones(num), (ids, np.arange(num))), shape=(int(ids.max()) + 1, num))


def _chunks(num: int, width: int) -> list[slice]:
    step = max(1, _CHUNK // max(1, width))
    return [slice(start, start + step) for start in range(0, num, step)]
