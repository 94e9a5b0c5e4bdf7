"""Pairs trials by seed and record, and computes every metric and difference."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from data_modules.errors import UserError
from lit_sft.ablation.run_files import ANSWER_METRICS, BITS_PER_BYTE, PREFERENCE_ACCURACY, TrialResult
from lit_sft.reporting.differences import Difference
from lit_sft.reporting.statistics import Estimate, Floats, estimate, holm


@dataclass(frozen=True, kw_only=True)
class ArmDifference(Difference):
    """An arm against the baseline in one metric, paired by seed and record.

    Attributes:
        arm: Name.
        name: The metric's name in the study.
    """

    arm: str
    name: str


def shared_name(metric: str) -> str:
    """The name under which `reporting.formatting` knows a metric of a study: a loss is named by its tokens only."""
    return metric if metric in (*ANSWER_METRICS, BITS_PER_BYTE, PREFERENCE_ACCURACY) else f"nll/{metric}"


Holds = Literal["yes", "NO", "by design", "unknown"]

_AFFECTS_TOKENIZER = ("model.backbone.tokenizer", "model.backbone.add_tokens", "model.backbone.add_special_tokens")
_AFFECTS_WEIGHTS = ("model.backbone.pretrained", "model.backbone.config", *_AFFECTS_TOKENIZER)
# `init` may move a part of the weights into the adapters
_AFFECTS_BASE = (*_AFFECTS_WEIGHTS, "model.backbone.lora.init", "model.backbone.quantization")
_AFFECTS_ADAPTERS = (*_AFFECTS_WEIGHTS, "model.backbone.lora", "model.backbone.tuning", "model.backbone.adapter")
_AFFECTS_TEXTS = ("data.cleaning", "data.mix", "data.txt_documents", "data.eval_window", "data.block_size")
_AFFECTS_DATA = (
    *("data.blocks", "data.keep_rest", "data.document_attention", *_AFFECTS_TEXTS),
    *("data.train", "data.val", "data.test", "data.format", "data.template", "data.samples", "data.max_length"),
    *("data.over_long", "data.on_invalid", "data.columns", "data.consecutive", "data.first_answer", *_AFFECTS_WEIGHTS),
)
"""Prefixes of settings that a study may vary on purpose, by what they affect."""


@dataclass(frozen=True)
class Check:
    """A condition for comparing arms in pairs.

    Attributes:
        what: What must be the same in all arms of a seed.
        holds: Whether it is; `by design`: it differs because the study compares exactly that; `unknown`: not recorded.
        why: Explanation, or where it differs.
    """

    what: str
    holds: Holds
    why: str


@dataclass(frozen=True)
class Comparison:
    """All trials of a study that have a result.

    Attributes:
        arms: Names, the baseline first.
        results: By arm and seed.
        settings: Settings of each arm, if known.
    """

    arms: list[str]
    results: dict[tuple[str, int], TrialResult] = field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def baseline(self) -> str:
        """Name of the arm that the others are compared with."""
        return self.arms[0]

    def seeds(self, arm: str) -> list[int]:
        """Seeds with a result of an arm."""
        return sorted(seed for name, seed in self.results if name == arm)

    def paired(self, arm: str) -> list[int]:
        """Seeds with a result of both an arm and the baseline."""
        return [seed for seed in self.seeds(arm) if (self.baseline, seed) in self.results]

    def trials(self, *arms: str, seeds: list[int]) -> list[TrialResult]:
        """Results of some arms and seeds."""
        return [self.results[arm, seed] for arm in arms for seed in seeds]

    def metrics(self) -> list[str]:
        """Names of all metrics that any trial has."""
        return list(dict.fromkeys(name for result in self.results.values() for name in result.sums))

    def mean(self, metric: str, arm: str) -> tuple[Estimate, float]:
        """Mean of a metric over an arm's seeds and records, and the total weight of the records.

        Raises:
            UserError: If its trials were scored on different tokens.
        """
        trials = self.trials(arm, seeds=self.seeds(arm))
        origins, weights = _scored(metric, trials)
        return estimate(_added(metric, trials, origins), weights), float(weights.sum())

    def difference(self, metric: str, arm: str) -> Estimate:
        """Estimate an arm minus the baseline, paired by seed and record.

        Raises:
            UserError: If they were scored on different tokens, or share no seed.
        """
        ours, theirs, weights = self._paired_sums(metric, arm)
        return estimate(ours - theirs, weights)

    def both(self, metric: str, arm: str) -> tuple[float, float]:
        """The means behind a difference: the baseline's and the arm's, over the seeds and records that both have.

        Raises:
            UserError: As `difference`.
        """
        ours, theirs, weights = self._paired_sums(metric, arm)
        return estimate(theirs, weights).value, estimate(ours, weights).value

    def _paired_sums(self, metric: str, arm: str) -> tuple[Floats, Floats, Floats]:
        """Each record's value for an arm and for the baseline, (S, R) each, and its weight, (R,)."""
        seeds = self.paired(arm)
        if not seeds:
            raise UserError(f"no seed has a result for both {arm} and {self.baseline}")
        ours, theirs = (self.trials(name, seeds=seeds) for name in (arm, self.baseline))
        origins, weights = _scored(metric, [*ours, *theirs])
        return _added(metric, ours, origins), _added(metric, theirs, origins), weights

    def checks(self) -> list[Check]:
        """Check the conditions for comparing in pairs."""
        found = [
            self._same("initial weights", lambda r: r.record.get("initial_weights"), by=_AFFECTS_BASE),
            self._same("initial adapters", _initial_adapters, by=_AFFECTS_ADAPTERS),
            self._same(
                "training records of every step",
                lambda r: r.record.get("order") or None,
                _share_a_prefix,
                by=(*_AFFECTS_DATA, "data.batch_size", "trainer.accumulate_grad_batches"),
            ),
            self._same(
                "training records and their encoding", lambda r: r.result.get("data_fingerprint"), by=_AFFECTS_DATA
            ),
            self._same(
                "test records",
                lambda r: r.result.get("test_fingerprint"),
                by=(*_AFFECTS_TOKENIZER, *_AFFECTS_TEXTS) if self._are_texts else (),
            ),
            self._same("versions", lambda r: r.result.get("versions")),
        ]
        return [*found, self._all_completed()]

    @property
    def _are_texts(self) -> bool:
        """Whether the arms are text runs, whose test documents are the same under every tokenizer."""
        return all(result.config.get("data_module") == "text" for result in self.results.values())

    def _all_completed(self) -> Check:
        """Whether every trial took all steps of its budget."""
        what, records = "steps of the budget", [(result, result.record) for result in self.results.values()]
        ended = [
            f"{result.arm}, seed {result.seed}: {record['step']} of {record['of']}"
            for result, record in records
            if record and record["step"] < record["of"]
        ]
        if ended:
            return Check(what, "NO", "; ".join(ended))
        if not all(record for _, record in records):
            return Check(what, "unknown", "not recorded")
        return Check(what, "yes", "all trials completed their steps")

    def _same(self, what: str, value: Any, agree: Any = operator.eq, by: tuple[str, ...] = ()) -> Check:
        """Whether every arm equals the baseline of the same seed, or differs by settings with these prefixes."""
        different, is_recorded = [], True
        for arm in self.arms[1:]:
            for seed in self.paired(arm):
                ours, theirs = (value(self.results[name, seed]) for name in (arm, self.baseline))
                if ours is None or theirs is None:
                    is_recorded = False
                elif not agree(ours, theirs) and arm not in different:
                    different.append(arm)
        if not different:
            same = Check(what, "yes", "the same in all arms of a seed")
            return same if is_recorded else Check(what, "unknown", "not recorded")
        named = f"{', '.join(different)}: not the same as {self.baseline}"
        causes = [{name for name in self._differing_settings(arm) if name.startswith(by)} for arm in different]
        if not all(causes):
            return Check(what, "NO", named)
        return Check(what, "by design", f"{named}, because of {', '.join(sorted(set().union(*causes)))}")

    def _differing_settings(self, arm: str) -> list[str]:
        """Settings in which an arm differs from the baseline."""
        ours, theirs = (self.settings.get(name, {}) for name in (arm, self.baseline))
        return [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]


def _initial_adapters(result: TrialResult) -> str | None:
    """Digest of the initial adapters; empty if the record predates this field, None if there is no record."""
    return result.record.get("initial_adapters", "") if result.record else None


def _share_a_prefix(ours: list[str], theirs: list[str]) -> bool:
    shared = min(len(ours), len(theirs))
    return ours[:shared] == theirs[:shared]


def _scored(metric: str, trials: list[TrialResult]) -> tuple[list[str], Floats]:
    """The records of a metric and their weights.

    If lines of a trial's records are damaged, only the records that all trials have are used. A record that has no
    weight in one of the trials is left out of all: a short text may be a single token for one of the tokenizers.

    Raises:
        UserError: If the trials were scored on different records or tokens.
    """
    if not trials:
        raise UserError("no result")
    found = [_weights(metric, trial) for trial in trials]
    without = {origin for weights in found for origin, weight in weights.items() if not weight}
    found = [{origin: weights[origin] for origin in weights.keys() - without} for weights in found]
    lost = [len(trial.damaged) for trial in trials]
    whole = [weights for weights, lines in zip(found, lost, strict=True) if not lines]
    cut = [(weights, lines) for weights, lines in zip(found, lost, strict=True) if lines]
    known = whole[0] if whole else dict(pair for weights, _ in cut for pair in weights.items())
    if any(other != known for other in whole) or not all(_is_part(weights, known, lost) for weights, lost in cut):
        named = {BITS_PER_BYTE: ("bytes", "texts"), PREFERENCE_ACCURACY: ("pairs", "pairs")}
        unit, what = named.get(metric, ("tokens", "tokens"))
        counts = sorted({f"{len(w):,} records, {sum(w.values()):,.0f} {unit}" for w in (*whole, *(w for w, _ in cut))})
        raise UserError(f"not comparable: scored on different {what} ({'; '.join(counts)})")
    shared = {origin: weight for origin, weight in known.items() if all(origin in weights for weights, _ in cut)}
    if not shared:
        raise UserError("not scored")
    origins = sorted(shared)
    return origins, np.array([shared[origin] for origin in origins], dtype=np.float64)


def _is_part(weights: dict[str, float], known: dict[str, float], lost: int) -> bool:
    """Whether a damaged trial's records are those of the others, except for its lost lines."""
    return weights.items() <= known.items() and len(known) - len(weights) <= lost


def _weights(metric: str, trial: TrialResult) -> dict[str, float]:
    """Weight of each record of a metric."""
    return {origin: weight for origin, (_, weight) in trial.sums.get(metric, {}).items()}


def _added(metric: str, trials: list[TrialResult], origins: list[str]) -> Floats:
    """Value of each record by seed, (S, R)."""
    return np.array([[trial.sums[metric][origin][0] for origin in origins] for trial in trials], dtype=np.float64)


class Findings:
    """Every metric of every arm, and every difference from the baseline, where they can be compared.

    Attributes:
        comparison: The trials.
        means: Estimate and total weight by metric and arm.
        differences: Of all metrics and arms; p-values are adjusted over the arms of a metric.
        refused: Metrics and arms that cannot be compared, and why.
    """

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self.means: dict[str, dict[str, tuple[Estimate, float]]] = {}
        self.differences: list[ArmDifference] = []
        self.refused: list[tuple[str, str, str]] = []
        for metric in comparison.metrics():
            self._add(metric)

    def _add(self, metric: str) -> None:
        estimates: dict[str, Estimate] = {}
        self.means[metric] = {}
        for arm in self.comparison.arms:
            try:
                self.means[metric][arm] = self.comparison.mean(metric, arm)
                if arm != self.comparison.baseline:
                    estimates[arm] = self.comparison.difference(metric, arm)
            except UserError as error:
                self.refused.append((metric, arm, str(error)))
        adjusted = holm([each.p_value for each in estimates.values()])
        self.differences += [
            ArmDifference(
                shared_name(metric), *self.comparison.both(metric, arm), each, each.p_value, p, arm=arm, name=metric
            )
            for (arm, each), p in zip(estimates.items(), adjusted, strict=True)
        ]
