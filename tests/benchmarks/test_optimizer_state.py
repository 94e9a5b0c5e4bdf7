"""The script measures every optimiser on the same rows, and says what is not installed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.documents import ROOT

SIZE = ("--shape", "tiny", "--layers", "1", "--batch-size", "2", "--threads", "1", "--steps", "2")


def test_every_optimiser_has_a_row(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("LIT_SFT_CACHE", str(tmp_path))
    command = [sys.executable, str(ROOT / "benchmarks" / "optimizer_state.py"), *SIZE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()[2:]]
    by_name = {row[0]: row[1:] for row in rows}
    assert list(by_name) == ["adamw", "adamw_8bit", "adafactor"]
    assert by_name["adamw"][1] == "8.00 bytes"
    assert float(by_name["adafactor"][1].split()[0]) < 1
    assert by_name["adamw"][3] == by_name["adafactor"][3]  # the same rows and weights
    in_8_bits = by_name["adamw_8bit"]
    if len(in_8_bits) == 1:
        assert "the package bitsandbytes is not installed" in in_8_bits[0]
    else:
        assert 2 < float(in_8_bits[1].split()[0]) < 3
