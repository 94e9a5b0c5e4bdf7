"""Lays trials side by side: what is paired with what, and every figure and difference that follows."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lit_sft.ablation.collect import TrialResult
from lit_sft.ablation.statistics import Estimate, Floats, estimate, holm

MORE_IS_BETTER = ("exact_match", "rougeL_mixed")


@dataclass(frozen=True)
class Difference:
    """An arm against the baseline in one figure, paired by seed and record."""

    figure: str
    arm: str
    estimate: Estimate
    adjusted_p: float

    @property
    def is_told(self) -> bool:
        """Whether the figures tell anything: they are finite, and there is more than one of them."""
        return math.isfinite(self.adjusted_p)

    @property
    def is_found(self) -> bool:
        return self.is_told and self.adjusted_p < 1 - self.estimate.confidence

    @property
    def is_better(self) -> bool:
        return (self.estimate.value > 0) == (self.figure in MORE_IS_BETTER)


@dataclass(frozen=True)
class Comparison:
    """All trials of a study that have a result.

    Attributes:
        arms: Names, the baseline first.
        results: By arm and seed.
    """

    arms: list[str]
    results: dict[tuple[str, int], TrialResult] = field(default_factory=dict)

    @property
    def baseline(self) -> str:
        return self.arms[0]

    def seeds(self, arm: str) -> list[int]:
        """Those an arm has a result of."""
        return sorted(seed for name, seed in self.results if name == arm)

    def paired(self, arm: str) -> list[int]:
        """Those that an arm and the baseline both have a result of."""
        return [seed for seed in self.seeds(arm) if (self.baseline, seed) in self.results]

    def trials(self, *arms: str, seeds: list[int]) -> list[TrialResult]:
        return [self.results[arm, seed] for arm in arms for seed in seeds]

    def figures(self) -> list[str]:
        """Everything that any trial was scored under."""
        return list(dict.fromkeys(name for result in self.results.values() for name in result.sums))

    def mean(self, figure: str, arm: str) -> tuple[Estimate, float]:
        """A figure of an arm over its seeds and records, and what the records weigh.

        Raises:
            ValueError: If its trials were scored on different tokens.
        """
        trials = self.trials(arm, seeds=self.seeds(arm))
        origins, weights = _scored(figure, trials)
        return estimate(_added(figure, trials, origins), weights), float(weights.sum())

    def difference(self, figure: str, arm: str) -> Estimate:
        """An arm minus the baseline, paired by seed and record.

        Raises:
            ValueError: If they were scored on different tokens, or have no seed in common.
        """
        seeds = self.paired(arm)
        if not seeds:
            raise ValueError(f"no seed of which {arm} and {self.baseline} both have a result")
        ours, theirs = (self.trials(name, seeds=seeds) for name in (arm, self.baseline))
        origins, weights = _scored(figure, [*ours, *theirs])
        return estimate(_added(figure, ours, origins) - _added(figure, theirs, origins), weights)

    def checks(self) -> list[tuple[str, bool, str]]:
        """What pairing rests on: what must be the same, whether it is, and where it is not."""
        found = [
            self._same("initial weights", lambda r: r.record.get("initial_weights")),
            self._same("records of every step", lambda r: r.record.get("order") or None, _agree_as_far_as_both_go),
            self._same("training records and their encoding", lambda r: r.result.get("data_fingerprint")),
            self._same("test records", lambda r: r.result.get("test_fingerprint")),
            self._same("versions", lambda r: r.result.get("versions")),
        ]
        ended = [
            f"{result.arm}, seed {result.seed}: {result.record['step']} of {result.record['of']}"
            for result in self.results.values()
            if result.record and result.record["step"] < result.record["of"]
        ]
        return [*found, ("steps of the budget", not ended, "; ".join(ended) or "all trials made theirs")]

    def _same(self, what: str, value: Any, agree: Any = operator.eq) -> tuple[str, bool, str]:
        """Whether every arm has what the baseline has with the same seed."""
        different = []
        for arm in self.arms[1:]:
            for seed in self.paired(arm):
                ours, theirs = (value(self.results[name, seed]) for name in (arm, self.baseline))
                if ours is None or theirs is None:
                    return what, False, "not recorded"
                if not agree(ours, theirs) and arm not in different:
                    different.append(arm)
        if different:
            return what, False, f"{', '.join(different)}: not those of {self.baseline}"
        return what, True, "the same in all arms of a seed"


def _agree_as_far_as_both_go(ours: list[str], theirs: list[str]) -> bool:
    shared = min(len(ours), len(theirs))
    return ours[:shared] == theirs[:shared]


def _scored(figure: str, trials: list[TrialResult]) -> tuple[list[str], Floats]:
    """The records that a figure is over, and what each weighs.

    Raises:
        ValueError: If they are not the same for all trials: the figure does not mean the same.
    """
    found = [{origin: weight for origin, (_, weight) in trial.sums.get(figure, {}).items()} for trial in trials]
    if any(other != found[0] for other in found):
        counts = sorted({f"{len(other):,} records, {sum(other.values()):,.0f} tokens" for other in found})
        raise ValueError(f"not comparable: scored on different tokens ({'; '.join(counts)})")
    if not found[0]:
        raise ValueError("not scored")
    origins = sorted(found[0])
    return origins, np.array([found[0][origin] for origin in origins], dtype=np.float64)


def _added(figure: str, trials: list[TrialResult], origins: list[str]) -> Floats:
    """What each record adds, (S, R)."""
    return np.array([[trial.sums[figure][origin][0] for origin in origins] for trial in trials], dtype=np.float64)


class Findings:
    """Every figure of every arm, and every difference to the baseline, as far as they can be compared.

    Attributes:
        comparison: The trials.
        means: By figure and arm: the estimate, and what its records weigh.
        differences: Of all figures and arms; p-values are adjusted among the arms of a figure.
        refused: Figures and arms that cannot be compared, and why.
    """

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self.means: dict[str, dict[str, tuple[Estimate, float]]] = {}
        self.differences: list[Difference] = []
        self.refused: list[tuple[str, str, str]] = []
        for figure in comparison.figures():
            self._add(figure)

    def _add(self, figure: str) -> None:
        estimates: dict[str, Estimate] = {}
        self.means[figure] = {}
        for arm in self.comparison.arms:
            try:
                self.means[figure][arm] = self.comparison.mean(figure, arm)
                if arm != self.comparison.baseline:
                    estimates[arm] = self.comparison.difference(figure, arm)
            except ValueError as error:
                self.refused.append((figure, arm, str(error)))
        adjusted = holm([each.p_value for each in estimates.values()])
        self.differences += [
            Difference(figure, arm, each, p) for (arm, each), p in zip(estimates.items(), adjusted, strict=True)
        ]
