"""Reads what trials left behind, and lays it side by side: figures by arm, seed and held-out record."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from lit_sft.ablation.statistics import Estimate, Floats, estimate, holm
from lit_sft.ablation.trials import read_json

ANSWER_FIGURES = ("exact_match", "rougeL_mixed", "ended", "repetition", "num_tokens")
"""Columns of test_answers.jsonl, as means over the records."""

Sums = dict[str, dict[str, tuple[float, float]]]

MORE_IS_BETTER = ("exact_match", "rougeL_mixed")


@dataclass(frozen=True)
class TrialResult:
    """What one trial found.

    Attributes:
        arm: Its name.
        seed: Of the run.
        folder: Of the run.
        result: Its result.json.
        record: Its trial.json; empty for a run without `TrialRecord`.
        sums: By figure and record origin: what the record adds, and its weight. Of a loss: nats and tokens; of an
            answer's figure: its value and 1.
        curve: Validations: step, and nll by mask.
        samples: Answers to fixed prompts at the last step: prompt to answer.
        config: Its config.yaml.
    """

    arm: str
    seed: int
    folder: Path
    result: dict[str, Any]
    record: dict[str, Any]
    sums: Sums
    curve: list[tuple[int, dict[str, float]]]
    samples: dict[str, str]
    config: dict[str, Any]

    @property
    def seconds(self) -> float:
        return float(self.record.get("seconds", 0.0))


@dataclass(frozen=True)
class Difference:
    """An arm against the baseline in one figure, paired by seed and record."""

    figure: str
    arm: str
    estimate: Estimate
    adjusted_p: float

    @property
    def is_found(self) -> bool:
        return self.adjusted_p < 1 - self.estimate.confidence

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
    def seeds(self) -> list[int]:
        """Of which every arm has a result: the others cannot be paired."""
        every = sorted({seed for _, seed in self.results})
        return [seed for seed in every if all((arm, seed) in self.results for arm in self.arms)]

    def figures(self) -> list[str]:
        """What every paired trial was scored under."""
        paired = [self.results[arm, seed] for arm in self.arms for seed in self.seeds]
        names = list(paired[0].sums) if paired else []
        return [name for name in names if all(name in result.sums for result in paired)]

    def weights(self, figure: str) -> tuple[list[str], Floats]:
        """The records that a figure is over, and what each weighs.

        Raises:
            ValueError: If they are not the same for all trials: the figure does not mean the same.
        """
        found = [
            {origin: weight for origin, (_, weight) in self.results[arm, seed].sums[figure].items()}
            for arm in self.arms
            for seed in self.seeds
        ]
        if any(other != found[0] for other in found):
            counts = sorted({f"{len(other):,} records, {sum(other.values()):,.0f} tokens" for other in found})
            raise ValueError(f"not comparable: the trials were scored on different tokens ({'; '.join(counts)})")
        origins = sorted(found[0])
        return origins, np.array([found[0][origin] for origin in origins], dtype=np.float64)

    def sums(self, figure: str, arm: str, origins: list[str]) -> Floats:
        """What each record adds, (S, R)."""
        rows = [[self.results[arm, seed].sums[figure][origin][0] for origin in origins] for seed in self.seeds]
        return np.array(rows, dtype=np.float64)

    def mean(self, figure: str, arm: str) -> Estimate:
        """A figure of an arm, over seeds and records."""
        origins, weights = self.weights(figure)
        return estimate(self.sums(figure, arm, origins), weights)

    def differences(self, figure: str) -> list[Difference]:
        """Every arm minus the baseline, their p-values adjusted for being several."""
        origins, weights = self.weights(figure)
        base = self.sums(figure, self.arms[0], origins)
        found = [estimate(self.sums(figure, arm, origins) - base, weights) for arm in self.arms[1:]]
        adjusted = holm([each.p_value for each in found])
        return [Difference(figure, *row) for row in zip(self.arms[1:], found, adjusted, strict=True)]

    def checks(self) -> list[tuple[str, bool, str]]:
        """What pairing rests on: what must be the same, whether it is, and where it is not."""
        return [
            self._same("initial weights", "in all arms of a seed", lambda r: r.record.get("initial_weights")),
            self._same_order(),
            self._same("test records", "in all trials", lambda r: r.result.get("test_fingerprint"), by_seed=False),
            self._same("versions", "in all trials", lambda r: json.dumps(r.result.get("versions")), by_seed=False),
        ]

    def _same(self, what: str, where: str, value: Any, *, by_seed: bool = True) -> tuple[str, bool, str]:
        groups = [[seed] for seed in self.seeds] if by_seed else [self.seeds]
        for group in groups:
            values = {arm: value(self.results[arm, seed]) for seed in group for arm in self.arms}
            if None in values.values():
                return what, False, "not recorded"
            different = [arm for arm in self.arms if values[arm] != values[self.arms[0]]]
            if different:
                return what, False, f"differ between {self.arms[0]} and {', '.join(different)}"
        return what, True, f"the same {where}"

    def _same_order(self) -> tuple[str, bool, str]:
        what, longest = "records of every step", 0
        for seed in self.seeds:
            orders = {arm: self.results[arm, seed].record.get("order", []) for arm in self.arms}
            shared = min(map(len, orders.values()))
            if not shared:
                return what, False, "not recorded"
            for arm, order in orders.items():
                if order[:shared] != orders[self.arms[0]][:shared]:
                    return (
                        what,
                        False,
                        f"differ between {self.arms[0]} and {arm}: their batches or data are not the same",
                    )
            longest = max(longest, max(map(len, orders.values())) - shared)
        beyond = f", as far as the shorter of two goes ({longest} steps differ)" if longest else ""
        return what, True, f"the same in all arms of a seed{beyond}"


def read_trial(file: Path, arm: str) -> TrialResult | None:
    """What a run found, from its result file; None if it has not been tested."""
    run, result = file.parent, read_json(file)
    if result is None:
        return None
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    return TrialResult(
        arm=arm,
        seed=int(config["seed_everything"]),
        folder=run,
        result=result,
        record=read_json(run / "trial.json") or {},
        sums=_sums(run, result),
        curve=[
            (row["step"], {name: mask["nll"] for name, mask in row["masks"].items()})
            for row in _rows(run / "loss_modes.jsonl")
        ],
        samples=_last_samples(run),
        config=config,
    )


def _sums(run: Path, result: dict[str, Any]) -> Sums:
    sums: Sums = {}
    for file in result.get("files", []):
        for row in _rows(run / file):
            for figure, value, weight in _values(row):
                record = sums.setdefault(figure, {})
                before = record.get(row["origin"], (0.0, 0.0))
                record[row["origin"]] = before[0] + value, before[1] + weight
    return sums | _by_file(sums)


def _by_file(sums: Sums) -> Sums:
    """Where the test records come from several files: the losses by file, a column for each data set."""
    files = sorted({origin.rpartition(":")[0] for origin in sums.get("whole_sequence", {})})
    return {
        f"{figure} in {Path(file).name}": part
        for figure in ("whole_sequence", "output_only")
        for file in files
        if len(files) > 1
        and (part := {o: row for o, row in sums.get(figure, {}).items() if o.rpartition(":")[0] == file})
    }


def _values(row: dict[str, Any]) -> Iterable[tuple[str, float, float]]:
    """Figures of a line of test_records.jsonl or test_answers.jsonl."""
    if "nats" in row:
        return [(name, nats, row["tokens"][name]) for name, nats in row["nats"].items()]
    return [(name, float(row[name]), 1.0) for name in ANSWER_FIGURES if name in row]


def _last_samples(run: Path) -> dict[str, str]:
    rows = _rows(run / "samples.jsonl")
    last = max((row["step"] for row in rows), default=0)
    return {row["prompt"]: row["answer"] for row in rows if row["step"] == last and row["temperature"] == 0}


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
