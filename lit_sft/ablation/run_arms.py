"""Groups runs that a user names one by one into arms, and names the arms."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from lit_sft.ablation.run_files import TrialResult


def by_arm(runs: list[TrialResult]) -> dict[tuple[str, int], TrialResult]:
    """Group runs by arm and seed.

    Runs `runs/<arm>/version_N` and `<arm>-seed<seed>` in one folder form an arm if they differ only in their seed. Any
    other run is a separate arm.

    Args:
        runs: The baseline first, each folder once; their `arm` is ignored.
    """
    arms = sorted(_arms(runs), key=lambda arm: runs.index(arm[0]))
    named = zip(_names([arm[0].folder.resolve() for arm in arms]), arms, strict=True)
    return {(name, run.seed): replace(run, arm=name) for name, arm in named for run in arm}


def training_settings(run: TrialResult) -> dict[str, Any]:
    """The settings that all seeds of an arm share."""
    parts = {name: run.config.get(name) for name in ("model", "data", "trainer")}
    if isinstance(parts["data"], dict):
        parts["data"] = {key: value for key, value in parts["data"].items() if key != "seed"}
    return parts


def _arms(runs: list[TrialResult]) -> list[list[TrialResult]]:
    alike: list[tuple[tuple[Path, str, dict[str, Any]], list[TrialResult]]] = []
    for run in runs:
        place = _place(run.folder.resolve())
        key = place.parent, _arm(place), training_settings(run)
        same = next((group for known, group in alike if known == key), None)
        if same is None:
            alike.append((key, [run]))
        else:
            same.append(run)
    # two runs with the same seed: it is unclear which one belongs to the others
    return [
        arm
        for _, group in alike
        for arm in ([group] if len({run.seed for run in group}) == len(group) else [[run] for run in group])
    ]


def _place(folder: Path) -> Path:
    """The folder that gives a run its name: its own, or the parent of `version_N`."""
    return folder.parent if re.fullmatch(r"version_\d+", folder.name) else folder


def _arm(place: Path) -> str:
    """Name of the arm, without the seed in the name of a study's trial."""
    return re.sub(r"-seed\d+$", "", place.name)


def _names(folders: list[Path]) -> list[str]:
    """A short name for each folder, with enough of its path to be unique."""
    names, length = [_arm(_place(folder)) for folder in folders], 1
    while len(set(names)) < len(names):
        length += 1
        longer = [str(PurePath(*folder.parts[-length:])) for folder in folders]
        names = [more if names.count(name) > 1 else name for name, more in zip(names, longer, strict=True)]
    return names
