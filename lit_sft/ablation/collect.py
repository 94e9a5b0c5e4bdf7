"""Collects the results of trials by arm and seed."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from data_modules.errors import UserError
from data_modules.wording import kind_of
from lit_sft.ablation.run_arms import by_arm, training_settings
from lit_sft.ablation.run_files import TrialResult, file_of, read_trial, short_names
from lit_sft.ablation.trials import result_of
from lit_sft.fields import Fields
from lit_sft.files import error_line, read_json

_Row = TypeVar("_Row")

_RUN_FILES = ("config.yaml", "ledger.json", "checkpoints", "result.json", "result_last.json")
"""A folder without any of these is not a run."""


@dataclass(frozen=True)
class Collected:
    """Results to compare.

    Attributes:
        arms: Names, the baseline first.
        results: By arm and seed.
        failures: Trials without a result, and why.
        settings: Settings of each arm, if known.
        question: In plain words.
        budget: What all trials had in common, such as equal steps.
        primary: The metric that answers the question.
    """

    arms: list[str]
    results: dict[tuple[str, int], TrialResult]
    failures: dict[str, str]
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    question: str = ""
    budget: str = "each run's own"
    primary: str = "answer"


def read_study_folder(folder: Path) -> Collected:
    """Read the trials of a study. A damaged trial is among the failures.

    Raises:
        UserError: If the folder is not a study, or study.json is damaged.
        OSError: If study.json cannot be read.
    """
    path = folder / "study.json"
    values = read_json(path)
    if values is None:
        raise UserError(f"{folder}: no study.json; expected a study folder, as `ablate` writes it.")
    found = Fields(values, str(path))
    arms, checkpoint = found.texts("arms"), found.text("checkpoint")
    if not arms:
        raise UserError(f"{path}: no arms; run the study's command again.")
    failures: dict[str, str] = {}
    results: dict[tuple[str, int], TrialResult] = {}
    for name, trial in _trials(found, failures):
        try:
            arm, seed = trial.text("arm"), trial.whole("seed")
            if arm not in arms or (arm, seed) in results:
                raise UserError(f"{path}: duplicate trial {name}, or its arm is not in `arms`.")
            place = folder / "trials" / trial.file_name("folder")
            result = read_trial(result_of(place / "version_0", checkpoint), arm)
            if result is None:
                failures[name] = _failure(place)
            else:
                results[arm, seed] = result
        except (UserError, OSError) as error:
            failures[name] = error_line(error)
    # the baseline stays first even if it has no result
    present = [arm for arm in dict.fromkeys(arms) if arm == arms[0] or any(key[0] == arm for key in results)]
    settings = found.fields("settings")
    return Collected(
        arms=present,
        results=with_short_origins(results),
        failures=failures,
        settings={arm: dict(settings.fields(arm).values) for arm in settings.values},
        question=found.text("question"),
        budget=found.text("budget"),
        primary=found.text("primary"),
    )


def _trials(study: Fields, failures: dict[str, str]) -> Iterator[tuple[str, Fields]]:
    """The trials that a study names; invalid ones are among the failures."""
    trials = study.values.get("trials")
    if not isinstance(trials, list):
        raise UserError(f"{study.place}: trials is {kind_of(trials)}; expected a list.")
    for number, values in enumerate(trials):
        try:
            trial = Fields(values, f"{study.place}, trial {number}")
            yield f"{trial.text('arm')}, seed {trial.whole('seed')}", trial
        except UserError as error:
            failures[f"trial {number}"] = str(error)


def _failure(place: Path) -> str:
    """Why a trial has no result."""
    failure = read_json(place / "failure.json")
    return "not run yet" if failure is None else Fields(failure, str(place / "failure.json")).text("reason")


def read_runs(folders: list[Path]) -> Collected:
    """Read runs: every run is an arm, except runs of the same name that differ only in their seed.

    A run given twice, by whatever path, counts once. A run without a result is among the failures.

    Raises:
        UserError: If a folder does not exist or is not a run, or if all are the same folder.
    """
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; expected a study, or a run such as runs/quickstart/version_0.")
        if (folder / "study.json").is_file():
            raise UserError(
                f"{folder}: this is a study; report it alone, or, to compare studies, name their run folders instead."
            )
        if not any((folder / name).exists() for name in _RUN_FILES):
            raise UserError(
                f"{folder}: not a run folder (no config.yaml); expected a study, or a run such as "
                "runs/quickstart/version_0."
            )
    if len(folders) > len(different(folders)) == 1:
        raise UserError(f"{', '.join(map(str, folders))}: the same folder; name a second run to compare it with.")
    runs: list[TrialResult] = []
    failures: dict[str, str] = {}
    for folder in different(folders):
        try:
            runs.append(_read_run(folder))
        except (UserError, OSError) as error:
            failures[str(folder)] = error_line(error)
    results = by_arm(runs)
    arms = list(dict.fromkeys(arm for arm, _ in results))
    return Collected(arms, with_short_origins(results), failures, settings=_differing_settings(results))


def different(folders: list[Path]) -> list[Path]:
    """Each folder once, as first given."""
    named: dict[Path, Path] = {}
    for folder in folders:
        named.setdefault(folder.resolve(), folder)
    return list(named.values())


def _read_run(folder: Path) -> TrialResult:
    """Read a tested run.

    Raises:
        UserError: If it has not been tested.
    """
    tested = [file for file in (folder / "result.json", folder / "result_last.json") if file.is_file()]
    result = read_trial(tested[0], folder.name) if tested else None
    if result is None:
        raise UserError(f"not tested yet (no result.json); run `python -m lit_sft test {folder}`")
    return result


def with_short_origins(results: dict[tuple[str, int], TrialResult]) -> dict[tuple[str, int], TrialResult]:
    """Shorten the names of test records if all runs were tested on the same ones.

    One run may have been tested with a relative path, another with an absolute one.
    """
    tests = {json.dumps(result.result.get("test_fingerprint")) for result in results.values()}
    if len(tests) != 1 or tests == {"null"}:
        return results
    return {key: _with_short_origins(result) for key, result in results.items()}


def _with_short_origins(result: TrialResult) -> TrialResult:
    origins = itertools.chain(result.answers, *result.sums.values())
    names = short_names({file_of(origin) for origin in origins})

    def short(rows: dict[str, _Row]) -> dict[str, _Row]:
        return {f"{names[file_of(origin)]}:{origin.rpartition(':')[2]}": row for origin, row in rows.items()}

    sums = {metric: short(rows) for metric, rows in result.sums.items()}
    return replace(result, sums=sums, answers=short(result.answers))


def _differing_settings(results: dict[tuple[str, int], TrialResult]) -> dict[str, dict[str, Any]]:
    """Settings in which the arms differ, by arm."""
    settings = {arm: dict(_dotted(training_settings(result))) for (arm, _), result in results.items()}
    names = {name for found in settings.values() for name in found}
    apart = sorted(name for name in names if len({json.dumps(s.get(name), default=str) for s in settings.values()}) > 1)
    return {arm: {name: found[name] for name in apart if name in found} for arm, found in settings.items()}


def _dotted(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _dotted(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
