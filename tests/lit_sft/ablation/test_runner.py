"""The table of trials, and why one failed, as its log shows it."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lit_sft.ablation.budget import Plan
from lit_sft.ablation.runner import Runner, _left, _reason
from lit_sft.ablation.study import Study
from lit_sft.ablation.trials import TrialFiles
from lit_sft.failures import BUG_NOTE

TRACEBACK = f"Traceback (most recent call last):\n  File ...\nKeyError: 'labels'\n{BUG_NOTE}\n"


def test_the_reason_is_that_of_the_latest_start(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text(f"\n$ python -m lit_sft fit\nlit_sft fit: no such file\n\n$ python -m lit_sft fit\n{TRACEBACK}")
    assert _reason(1, log) == f"KeyError: 'labels' (see {log})"
    log.write_text(f"\n$ python -m lit_sft fit\n{TRACEBACK}\n$ python -m lit_sft fit\nlit_sft fit: no such file\nbye")
    assert _reason(2, log) == f"lit_sft fit: no such file (see {log})"
    log.write_text("\n$ python -m lit_sft fit\n")
    assert _reason(1, log) == f"no output (see {log})"
    assert _reason(-signal.SIGKILL, log) == f"killed by SIGKILL, usually out of memory; see {log}"


def test_the_time_left_of_a_trial_is_given_as_everywhere() -> None:
    assert _left({"step": 10, "of": 30, "seconds": 3600}) == "2.0 h"
    assert _left({"step": 0, "of": 30, "seconds": 0}) == _left({}) == ""


@pytest.mark.parametrize(
    ("axes", "is_warned"),
    [
        ({"data.mask": ["output_only", "whole_sequence"]}, True),
        ({"model.objective.name": ["next_token", "dft"]}, True),
        ({"data.samples": [1, 2]}, False),
    ],
)
def test_losses_under_different_masks_are_not_to_be_compared(
    axes: dict[str, list[Any]], is_warned: bool, tmp_path: Path
) -> None:
    study = Study("masks", [], axes=axes, seeds=[0, 1])
    trials = [TrialFiles(study, trial) for trial in study.trials(tmp_path)]
    console = Console(record=True, width=120)
    console.print(Runner(trials, Plan(), 1, console).table())
    assert ("do not compare them" in console.export_text()) == is_warned
