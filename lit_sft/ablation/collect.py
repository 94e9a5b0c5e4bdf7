"""Reads what trials left behind: figures by arm, seed and held-out record."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lit_sft.ablation.trials import result_of
from lit_sft.files import read_json

ANSWER_FIGURES = ("exact_match", "rougeL_mixed", "ended", "repetition", "num_tokens")
"""Columns of test_answers.jsonl, as means over the records."""

Sums = dict[str, dict[str, tuple[float, float]]]


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
        primary: The figure that answers the question.
    """

    arms: list[str]
    results: dict[tuple[str, int], TrialResult]
    failures: dict[str, str]
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    question: str = ""
    budget: str = "each run's own"
    primary: str = "answer"


def read_study_folder(folder: Path) -> Collected:
    """The trials of a study.

    Raises:
        ValueError: If it is none.
    """
    found = read_json(folder / "study.json")
    if found is None:
        raise ValueError(f"{folder}: no study.json; a study's folder is what `ablate` writes.")
    failures: dict[str, str] = {}
    results: dict[tuple[str, int], TrialResult] = {}
    for trial in found["trials"]:
        place = folder / "trials" / trial["folder"]
        failure = read_json(place / "failure.json")
        name = f"{trial['arm']}, seed {trial['seed']}"
        try:
            result = read_trial(result_of(place / "version_0", found["checkpoint"]), trial["arm"])
        except (ValueError, OSError) as error:
            failures[name] = str(error)
            continue
        if result is not None:
            results[trial["arm"], trial["seed"]] = result
        else:
            failures[name] = failure["reason"] if failure else "not run yet"
    # the baseline stays the first, also where nothing of it is left to compare with
    present = [arm for arm in found["arms"] if arm == found["arms"][0] or any(key[0] == arm for key in results)]
    facts = {key: str(found[key]) for key in ("question", "budget", "primary")}
    return Collected(present, results, failures, settings=found["settings"], **facts)


def read_runs(folders: list[Path]) -> Collected:
    """Runs of the user's own: an arm is what stands in one folder, `runs/<arm>/version_N` (or `runs/<arm>-seed<seed>`).

    Raises:
        ValueError: If a folder is not there.
    """
    results: dict[tuple[str, int], TrialResult] = {}
    failures: dict[str, str] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(
                f"{folder}: no such folder; expected a study's, or a run's such as runs/quickstart/version_0."
            )
        if (folder / "study.json").is_file():
            raise ValueError(f"{folder}: a study, which is reported by itself; of several, name their runs.")
        arm = _arm_of(folder)
        tested = [file for file in (folder / "result.json", folder / "result_last.json") if file.is_file()]
        result = read_trial(tested[0], arm) if tested else None
        if result is None:
            failures[str(folder)] = "no result.json: run `python -m lit_sft test` on it"
        elif (arm, result.seed) in results:
            failures[str(folder)] = f"a second run of {arm} with seed {result.seed}"
        elif any(name == arm and _shaping(other) != _shaping(result) for (name, _), other in results.items()):
            failures[str(folder)] = f"has other settings than the first run of {arm}; rename its folder"
        else:
            results[arm, result.seed] = result
    arms = list(dict.fromkeys(arm for arm, _ in results))
    return Collected(arms, results, failures, settings=_set_apart(results))


def _arm_of(folder: Path) -> str:
    """The run's name, without the seed that a study's trials have in theirs."""
    return re.sub(r"-seed\d+$", "", folder.resolve().parent.name)


def _set_apart(results: dict[tuple[str, int], TrialResult]) -> dict[str, dict[str, Any]]:
    """By arm, the settings in which the arms differ."""
    settings = {arm: dict(_dotted(_shaping(result))) for (arm, _), result in results.items()}
    names = {name for found in settings.values() for name in found}
    apart = sorted(name for name in names if len({json.dumps(s.get(name), default=str) for s in settings.values()}) > 1)
    return {arm: {name: found[name] for name in apart if name in found} for arm, found in settings.items()}


def _dotted(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _dotted(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


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


def _shaping(result: TrialResult) -> dict[str, Any]:
    """The settings of a run that its seeds have in common."""
    config = result.config
    data = {key: value for key, value in config["data"].items() if key != "seed"}
    return {"model": config["model"], "data": data, "trainer": config["trainer"]}
