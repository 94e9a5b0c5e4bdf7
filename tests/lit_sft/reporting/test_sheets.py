"""CSV files contain untrusted names, and a spreadsheet must not run any of them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from lit_sft.reporting.sheets import write_csv


def cells(path: Path, *values: object) -> list[str]:
    write_csv(path, [values])
    with path.open(encoding="utf-8", newline="") as stream:
        (row,) = csv.reader(stream)
    return row


@pytest.mark.parametrize(
    "name", ["=1+1", "+cmd", "-2+3+cmd|' /C calc'!A0", "@SUM(A1)", "\tx", "\rx", "\n=x", " =x", "＝1", "-", "--jobs"]
)
def test_a_name_that_a_spreadsheet_would_run_is_text(tmp_path: Path, name: str) -> None:
    (cell,) = cells(tmp_path / "a.csv", name)
    assert cell.startswith("'")


@pytest.mark.parametrize("value", [-0.5, "-0.5", "+3", -2, "1e-3", "mask=output_only", "", float("nan"), "a-b", "喂"])
def test_numbers_and_other_names_stay_as_they_are(tmp_path: Path, value: object) -> None:
    assert cells(tmp_path / "a.csv", value, "x") == [str(value), "x"]


def test_control_characters_and_invalid_utf8_are_written_as_symbols(tmp_path: Path) -> None:
    assert cells(tmp_path / "a.csv", "a\x1b[2J\u202eb\ud800") == ["a␛[2J\\u202eb\\ud800"]
