"""Reads what trials left behind: metrics by arm, seed and test record."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from data_modules.errors import UserError
from data_modules.records.record import kind_of
from lit_sft.ablation.run_arms import by_arm, shaping
from lit_sft.ablation.run_files import Sums, TrialResult, file_of, read_trial, short_names
from lit_sft.ablation.trials import result_of
from lit_sft.fields import Fields
from lit_sft.files import error_line, read_json


@dataclass(frozen=True)
class Collected:
    """What is there to compare.

    Attributes:
        arms: Names, the baseline first.
        results: By arm and seed.
        failures: What has no result, and why.
        settings: What each arm sets, where a study says so.
        question: In plain words.
        budget: What the trials had equally much of.
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
    """The trials of a study. One that is damaged is among the failures.

    Raises:
        UserError: If it is no study, or study.json is damaged.
        OSError: If study.json cannot be read.
    """
    path = folder / "study.json"
    values = read_json(path)
    if values is None:
        raise UserError(f"{folder}: no study.json; a study's folder is what `ablate` writes.")
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
                raise UserError(f"{path}: duplicate trial {name}, or one of an arm that the study does not have.")
            place = folder / "trials" / trial.file_name("folder")
            result = read_trial(result_of(place / "version_0", checkpoint), arm)
            if result is None:
                failures[name] = _failure(place)
            else:
                results[arm, seed] = result
        except (UserError, OSError) as error:
            failures[name] = error_line(error)
    # the baseline stays the first, also where nothing of it is left to compare with
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
    """The trials that a study names; what is none is among the failures."""
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
    """Runs of the user's own: every run is an arm, but for those of one name that differ in their seed alone.

    A run that is named twice, by whatever path, counts once. One without a result is among the failures.

    Raises:
        UserError: If a folder is not there.
    """
    for folder in folders:
        if not folder.is_dir():
            raise UserError(
                f"{folder}: no such folder; expected a study's, or a run's such as runs/quickstart/version_0."
            )
        if (folder / "study.json").is_file():
            raise UserError(f"{folder}: a study, which is reported by itself; of several, name their runs.")
    runs: list[TrialResult] = []
    failures: dict[str, str] = {}
    for folder in different(folders):
        try:
            runs.append(_read_run(folder))
        except (UserError, OSError) as error:
            failures[str(folder)] = error_line(error)
    results = by_arm(runs)
    arms = list(dict.fromkeys(arm for arm, _ in results))
    return Collected(arms, with_short_origins(results), failures, settings=_set_apart(results))


def different(folders: list[Path]) -> list[Path]:
    """Every folder once, as it was first named."""
    named: dict[Path, Path] = {}
    for folder in folders:
        named.setdefault(folder.resolve(), folder)
    return list(named.values())


def _read_run(folder: Path) -> TrialResult:
    """What a run found.

    Raises:
        UserError: If it has not been tested.
    """
    tested = [file for file in (folder / "result.json", folder / "result_last.json") if file.is_file()]
    result = read_trial(tested[0], folder.name) if tested else None
    if result is None:
        raise UserError(f"not tested yet (no result.json); run `python -m lit_sft test {folder}`")
    return result


def with_short_origins(results: dict[tuple[str, int], TrialResult]) -> dict[tuple[str, int], TrialResult]:
    """Where all were tested on the same records, these by names that do not depend on how their files were given.

    One run may have been tested with a relative path to them, another with an absolute one.
    """
    tests = {json.dumps(result.result.get("test_fingerprint")) for result in results.values()}
    if len(tests) != 1 or tests == {"null"}:
        return results
    return {key: replace(result, sums=_short_sums(result.sums)) for key, result in results.items()}


def _short_sums(sums: Sums) -> Sums:
    names = short_names({file_of(origin) for rows in sums.values() for origin in rows})
    return {
        metric: {f"{names[file_of(origin)]}:{origin.rpartition(':')[2]}": row for origin, row in rows.items()}
        for metric, rows in sums.items()
    }


def _set_apart(results: dict[tuple[str, int], TrialResult]) -> dict[str, dict[str, Any]]:
    """By arm, the settings in which the arms differ."""
    settings = {arm: dict(_dotted(shaping(result))) for (arm, _), result in results.items()}
    names = {name for found in settings.values() for name in found}
    apart = sorted(name for name in names if len({json.dumps(s.get(name), default=str) for s in settings.values()}) > 1)
    return {arm: {name: found[name] for name in apart if name in found} for arm, found in settings.items()}


def _dotted(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _dotted(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
