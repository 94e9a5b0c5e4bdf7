"""The script measures every setting in a process of its own, on the same rows."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from tests.documents import ROOT

SHAPE = ("--shape", "gpt2", "--layers", "1", "--steps", "1", "--rounds", "1", "--batch-size", "2", "--threads", "1")


@pytest.mark.skipif(shutil.which("g++") is None, reason="compiled layers need a C++ compiler")
def test_every_setting_has_a_row_and_the_same_loss() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "step_memory.py"), *SHAPE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()[2:]]
    assert [row[0] for row in rows] == ["neither", "compile", "checkpointing"]
    losses = [float(row[-1]) for row in rows]
    assert losses[0] == losses[2]  # recomputing changes no bit
    assert losses[1] == pytest.approx(losses[0], rel=2e-2)
