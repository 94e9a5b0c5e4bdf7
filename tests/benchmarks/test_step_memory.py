"""The script measures a setting in a process of its own, and the table shows the fastest of the rounds."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from benchmarks.step_memory import table
from tests.documents import ROOT


def measured(setting: str) -> dict[str, Any]:
    options = ["--shape", "gpt2", "--layers", "1", "--steps", "1", "--batch-size", "2", "--threads", "1"]
    command = [sys.executable, str(ROOT / "benchmarks" / "step_memory.py"), *options, "--setting", setting]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_settings_have_the_same_rows_and_loss() -> None:
    usual, recomputed = measured("neither"), measured("checkpointing")
    assert usual["tokens"] == recomputed["tokens"]
    assert usual["loss"] == recomputed["loss"]  # recomputing changes no bit


def test_table_shows_the_fastest_round_of_each_step_and_the_highest_peak() -> None:
    rounds = [
        {"seconds": [2.0, 1.5], "tokens": [1200, 90], "peak": 3.0, "loss": 2.5},
        {"seconds": [1.0, 1.75], "tokens": [1200, 90], "peak": 3.25, "loss": 2.5},
    ]
    assert table({"neither": rounds}).splitlines() == [
        "| setting | step 1, 1,200 tokens | step 2, 90 tokens | peak | first loss |",
        "|---|---:|---:|---:|---:|",
        "| neither | 1.00 s | 1.50 s | 3.2 GB | 2.5000 |",
    ]
