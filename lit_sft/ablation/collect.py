"""Reads what trials left behind, and lays it side by side: figures by arm, seed and held-out record."""

from __future__ import annotations

import json
import math
import operator
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from lit_sft.ablation.statistics import Estimate, Floats, estimate
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
            # null stands for what is not finite
            (
                row["step"],
                {name: math.nan if mask["nll"] is None else mask["nll"] for name, mask in row["masks"].items()},
            )
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
    shared = len(os.path.commonpath(files)) + 1 if len(files) > 1 else 0
    return {
        f"{figure} in {file[shared:]}": part
        for figure in ("whole_sequence", "output_only")
        for file in files
        if shared and (part := {o: row for o, row in sums.get(figure, {}).items() if o.rpartition(":")[0] == file})
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
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        try:
            rows += [json.loads(line)] if line.strip() else []
        except ValueError as error:
            raise ValueError(f"{path}:{number}: no JSON ({error}); test this run again.") from None
    return rows
