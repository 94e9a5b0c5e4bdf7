"""A difference between two models or arms in one metric, and how tables show it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lit_sft.reporting.formatting import change_of, direction, interval_of, p_of, value_of, verdict_of
from lit_sft.reporting.page import Cell, Finding
from lit_sft.reporting.statistics import Estimate


@dataclass(frozen=True)
class Difference:
    """A difference in one metric, paired by record.

    Attributes:
        metric: Its name, as `reporting.formatting` knows it.
        before: The mean of the baseline.
        after: The mean of what is compared with it, over the same records.
        estimate: Estimate of the difference.
        p_value: Two-sided.
        adjusted_p: Adjusted by Holm's method within its family of comparisons.
    """

    metric: str
    before: float
    after: float
    estimate: Estimate
    p_value: float
    adjusted_p: float = math.nan

    @property
    def is_zero(self) -> bool:
        """Whether both are equal in every record and seed, which leaves nothing to test."""
        return self.estimate.value == self.estimate.standard_error == 0

    @property
    def is_known(self) -> bool:
        """Whether there is a p-value: at least two values, all finite, that do not all differ by the same amount."""
        return math.isfinite(self.adjusted_p)

    @property
    def is_found(self) -> bool:
        """Whether the difference is beyond noise."""
        return self.is_known and self.adjusted_p < 1 - self.estimate.confidence

    @property
    def sense(self) -> int:
        """1 if it is an improvement, -1 if it is the opposite, 0 if nothing changed or the metric has no direction."""
        return 0 if math.isnan(self.estimate.value) else direction(self.metric) * int(np.sign(self.estimate.value))

    @property
    def verdict(self) -> str:
        """What was found, in a word or two."""
        return verdict_of(self.metric, self.estimate.value, is_found=self.is_found, is_known=self.is_known)

    @property
    def colour(self) -> int:
        """1, -1 or 0: the sense of a difference beyond noise, for pictures and cells."""
        return self.sense if self.is_found else 0

    @property
    def finding(self) -> Finding:
        """The verdict as a cell."""
        return Finding(self.verdict, self.colour)

    def cells(self) -> list[Cell]:
        """Both values, the difference with its interval, p and adjusted p."""
        return [
            value_of(self.metric, self.before),
            value_of(self.metric, self.after),
            change_of(self.metric, self.estimate.value),
            interval_of(self.metric, self.estimate),
            p_of(self.p_value),
            p_of(self.adjusted_p),
        ]
