"""How sure a metric is, and a difference between two arms, when both the seeds and the test records are samples.

Every trial of an arm has a seed of its own and is scored on the same rows, so a metric varies in two crossed ways. The
few seeds decide how sure it is, and resampling them (a bootstrap over three seeds has ten different results) gives
intervals that are much too narrow. Instead the mean squares of a two-way analysis of variance without replication give
the variance of the mean, and Satterthwaite's formula how many degrees of freedom that estimate has.

Source: H. H. Clark, "The language-as-fixed-effect fallacy", Journal of Verbal Learning and Verbal Behavior 12 (1973),
for the sum of mean squares; F. E. Satterthwaite, Biometrics Bulletin 2 (1946), for its degrees of freedom.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

from data_modules.errors import UserError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds and rows with what is known of its error.

    Attributes:
        value: The mean, weighted.
        standard_error: nan where nothing tells it (one row).
        degrees: Degrees of freedom of `standard_error`.
        num_seeds: Of the trials.
        num_rows: Records that each of them was scored on.
        confidence: Of the interval.
    """

    value: float
    standard_error: float
    degrees: float
    num_seeds: int
    num_rows: int
    confidence: float = 0.95

    @property
    def half_width(self) -> float:
        return float(student.ppf((1 + self.confidence) / 2, self.degrees)) * self.standard_error

    @property
    def low(self) -> float:
        return self.value - self.half_width

    @property
    def high(self) -> float:
        return self.value + self.half_width

    @property
    def p_value(self) -> float:
        """Two-sided, of the mean being zero; nan where nothing tells: where all values are alike, or too few."""
        if self.standard_error == 0:
            return math.nan
        return float(2 * student.sf(abs(self.value) / self.standard_error, self.degrees))


def estimate(sums: Floats, weights: Floats, confidence: float = 0.95) -> Estimate:
    """The weighted mean of a quantity over all seeds and rows.

    Args:
        sums: What each row adds (nats, say), (S, R): a line a seed. For a difference between two arms, the difference
            of theirs: pairing is by seed and row.
        weights: What each row weighs (its tokens, say), (R,); the same for every seed.
        confidence: Of the interval.

    Returns:
        The estimate. With one seed its error is that of the rows alone, and says nothing of other seeds.

    Raises:
        UserError: If the shapes do not fit, or no row weighs anything.
    """
    if sums.ndim != 2 or sums.shape[1:] != weights.shape or not sums.size:
        raise ValueError(f"expected sums (S, R) and weights (R,); got {sums.shape} and {weights.shape}.")
    if not weights.sum() > 0:
        raise UserError("no row has any weight: there is nothing to take a mean of.")
    num_seeds, num_rows = sums.shape
    value = float(sums.sum() / (num_seeds * weights.sum()))
    # how far each row moves the ratio of sums: the first-order term of its expansion
    influence = (sums - value * weights) / weights.mean()
    variance, degrees = _variance_of_mean(influence)
    return Estimate(value, math.sqrt(variance), degrees, num_seeds, num_rows, confidence)


def _variance_of_mean(values: Floats) -> tuple[float, float]:
    """Variance of the mean of a two-way table, and its degrees of freedom."""
    num_seeds, num_rows = values.shape
    by_seed, by_row = values.mean(axis=1), values.mean(axis=0)
    if num_rows == 1:
        return (float(by_seed.var(ddof=1)) / num_seeds if num_seeds > 1 else math.nan), max(num_seeds - 1, 1)
    rows = num_seeds * float(by_row.var(ddof=1))
    if num_seeds == 1:
        return rows / num_rows, num_rows - 1
    seeds = num_rows * float(by_seed.var(ddof=1))
    rest = values - by_seed[:, None] - by_row + values.mean()
    free = (num_seeds - 1) * (num_rows - 1)
    noise = float((rest**2).sum()) / free
    total = seeds + rows - noise
    if total <= max(seeds, rows):  # an effect that is estimated to be none takes nothing away from the other
        total, noise = max(seeds, rows), 0.0
        seeds, rows = (seeds, 0.0) if seeds >= rows else (0.0, rows)
    if total == 0:
        return 0.0, num_seeds - 1
    spread = seeds**2 / (num_seeds - 1) + rows**2 / (num_rows - 1) + noise**2 / free
    return total / (num_seeds * num_rows), total**2 / spread


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values that hold for all comparisons together; those that are nan stay so, and count for nothing.

    Source: S. Holm, Scandinavian Journal of Statistics 6 (1979).
    """
    adjusted, highest = [math.nan] * len(p_values), 0.0
    known = [index for index, p in enumerate(p_values) if not math.isnan(p)]
    for rank, index in enumerate(sorted(known, key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(known) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
