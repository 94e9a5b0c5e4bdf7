"""Confidence intervals of means and differences when both the seeds and the test records are samples.

Every trial of an arm has its own seed and is scored on the same rows, so a metric has two crossed sources of variance.
The few seeds limit the precision, and resampling them (a bootstrap over three seeds has ten different results) gives
intervals that are much too narrow. Instead, the variance of the mean comes from the mean squares of a two-way analysis
of variance without replication, and its degrees of freedom from Satterthwaite's formula.

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
    """A mean over seeds and rows with its standard error.

    Attributes:
        value: The weighted mean.
        standard_error: NaN with a single row and seed.
        degrees: Degrees of freedom of `standard_error`.
        num_seeds: Number of seeds.
        num_rows: Number of records that each trial was scored on.
        confidence: Level of the interval.
    """

    value: float
    standard_error: float
    degrees: float
    num_seeds: int
    num_rows: int
    confidence: float = 0.95

    @property
    def half_width(self) -> float:
        """Half the width of the confidence interval."""
        return float(student.ppf((1 + self.confidence) / 2, self.degrees)) * self.standard_error

    @property
    def low(self) -> float:
        """Lower end of the confidence interval."""
        return self.value - self.half_width

    @property
    def high(self) -> float:
        """Upper end of the confidence interval."""
        return self.value + self.half_width

    @property
    def p_value(self) -> float:
        """Two-sided p-value of the mean being zero; NaN if all values are equal, or there are too few."""
        if self.standard_error == 0:
            return math.nan
        return float(2 * student.sf(abs(self.value) / self.standard_error, self.degrees))


def estimate(sums: Floats, weights: Floats, confidence: float = 0.95) -> Estimate:
    """Estimate the weighted mean of a quantity over all seeds and rows.

    Args:
        sums: Value of each row (such as nats), (S, R), one line per seed. To compare two arms, pass the difference
            of their sums, paired by seed and row.
        weights: Weight of each row (such as tokens), (R,); the same for every seed.
        confidence: Level of the interval.

    Returns:
        The estimate. With one seed its error covers the rows only, not other seeds.

    Raises:
        ValueError: If the shapes do not match.
        UserError: If all weights are zero.
    """
    if sums.ndim != 2 or sums.shape[1:] != weights.shape or not sums.size:
        raise ValueError(f"expected sums (S, R) and weights (R,); got {sums.shape} and {weights.shape}.")
    if not weights.sum() > 0:
        raise UserError("all rows have zero weight, so there is no mean.")
    num_seeds, num_rows = sums.shape
    value = float(sums.sum() / (num_seeds * weights.sum()))
    # how far each row moves the ratio of sums, to first order
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
    if total <= max(seeds, rows):  # a variance component estimated as zero must not reduce the other
        total, noise = max(seeds, rows), 0.0
        seeds, rows = (seeds, 0.0) if seeds >= rows else (0.0, rows)
    if total == 0:
        return 0.0, num_seeds - 1
    spread = seeds**2 / (num_seeds - 1) + rows**2 / (num_rows - 1) + noise**2 / free
    return total / (num_seeds * num_rows), total**2 / spread


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for multiple comparisons by Holm's method; NaN values stay NaN and do not count.

    Source: S. Holm, Scandinavian Journal of Statistics 6 (1979).
    """
    adjusted, highest = [math.nan] * len(p_values), 0.0
    known = [index for index, p in enumerate(p_values) if not math.isnan(p)]
    for rank, index in enumerate(sorted(known, key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(known) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
