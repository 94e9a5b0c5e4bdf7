from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from lit_sft.files import json_line, write_json, write_lines

ODD = {"nan": math.nan, "list": [math.inf, -math.inf, 1.5], "text": "\x85\u2028\x7f\ud83d 中"}


def refuse(word: str) -> None:
    raise AssertionError(f"{word} is not JSON")


def test_json_holds_no_nan_and_no_text_that_breaks_a_line_or_cannot_be_encoded(tmp_path: Path) -> None:
    write_json(tmp_path / "one.json", ODD)
    write_lines(tmp_path / "many.jsonl", [ODD, ODD])
    lines = [(tmp_path / "one.json").read_text(encoding="utf-8"), json_line(ODD)]
    lines += (tmp_path / "many.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 4
    for line in lines:
        found = json.loads(line, parse_constant=refuse)
        assert found == {"nan": None, "list": [None, None, 1.5], "text": ODD["text"]}


def test_lines_that_fail_half_way_leave_the_file_before_as_it_was(tmp_path: Path) -> None:
    def rows() -> Iterator[int]:
        yield 1
        raise OSError("no space left")

    path = tmp_path / "rows.jsonl"
    write_lines(path, [0])
    with pytest.raises(OSError, match="no space left"):
        write_lines(path, rows())
    assert path.read_text() == "0\n"
    assert [file.name for file in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_damaged_file_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_bytes(b"\xff\xfe")
    write_json(path, {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}
