"""The script trains beside every base in a process of its own, with the same rows."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.documents import ROOT

SCRIPT = str(ROOT / "benchmarks" / "quantized_lora.py")
SIZE = ("--shape", "tiny", "--layers", "1", "--batch-size", "2", "--val-batches", "2", "--threads", "1")


def test_every_base_has_a_row_and_learns(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("LIT_SFT_CACHE", str(tmp_path))
    done = subprocess.run(
        [sys.executable, SCRIPT, *SIZE, "--steps", "3"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()[2:]]
    assert [row[0] for row in rows] == ["float32", "whole", "int8", "nf4"]
    before, after = ([float(row[column]) for row in rows] for column in (4, 5))
    assert all(loss < start for start, loss in zip(before, after, strict=True))
    assert before == pytest.approx([before[0]] * 4, abs=2e-3)


def test_a_single_step_is_refused() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--steps", "1"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--steps 1: expected at least 2; the first is not timed" in done.stderr
