from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from data_modules.errors import UserError
from lit_sft.files import (
    append_line,
    error_line,
    is_file_name,
    json_line,
    read_json,
    read_rows,
    slug,
    write_json,
    write_lines,
    write_text,
)

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


@pytest.mark.parametrize("write", [write_json, write_text, write_lines])
def test_a_device_is_written_to_and_never_replaced(write: Callable[[Path, Any], None], tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDWR)  # so that the writer need not wait for one
    write(path, "7")
    assert b"7" in os.read(reader, 100)
    os.close(reader)
    assert path.is_fifo()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("write", [write_json, write_text, write_lines])
def test_what_cannot_be_written_is_named_as_the_caller_named_it(
    write: Callable[[Path, Any], None], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "no" / "x.json", tmp_path / "file" / "x.json", tmp_path):
        with pytest.raises(OSError, match=r"No such file|Not a directory|Is a directory") as raised:
            write(path, "7")
        assert Path(raised.value.filename) == path


def test_failed_write_leaves_the_previous_file_unchanged(tmp_path: Path) -> None:
    def rows() -> Iterator[int]:
        yield 1
        raise OSError("no space left")

    path = tmp_path / "rows.jsonl"
    write_lines(path, [0])
    with pytest.raises(OSError, match="no space left"):
        write_lines(path, rows())
    assert path.read_text() == "0\n"
    assert [file.name for file in tmp_path.iterdir()] == ["rows.jsonl"]


def test_damaged_file_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_bytes(b"\xff\xfe")
    write_json(path, {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}


@pytest.mark.parametrize("damage", [b'{"step": 1, "mas', b"\xff\xfe", b"[1]", b"[" * 100_000, b"null", b"9" * 5000])
def test_a_line_that_is_damaged_is_named_and_does_not_affect_the_others(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    append_line(path, {"step": 0})
    with path.open("ab") as stream:
        stream.write(damage)  # as a killed process leaves it
    append_line(path, {"step": 2}, sync=True)
    found = read_rows(path)
    assert found.rows == [{"step": 0}, {"step": 2}]
    (said,) = found.damaged
    assert said.startswith(f"{path}:2: ")
    assert len(said) < len(str(path)) + 300


@pytest.mark.parametrize("content", [b"{", b"[]", b"3", b"\xff", b"[" * 100_000, b"9" * 5000, b""])
def test_file_that_is_not_a_json_object_gives_a_one_line_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "one.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"one\.json: (not valid JSON|found [a-z0-9 ]+; expected an object)") as raised:
        read_json(path)
    assert "\n" not in str(raised.value)


def test_different_names_give_different_folders(tmp_path: Path) -> None:
    assert [slug(name, "arm") for name in ("a b", "../..", "mask=output_only", "喂", "\x1b")] == [
        "a_b", "arm", "mask=output_only", "喂", "arm",
    ]  # fmt: skip
    one, other = (slug("x" * 300 + end, "arm") for end in "ab")
    assert one != other
    (tmp_path / one).mkdir()


def test_the_type_of_an_error_is_named_unless_it_is_the_users_or_the_systems() -> None:
    assert error_line(UserError("rows.json: empty.\nmore")) == "rows.json: empty."
    assert error_line(FileNotFoundError(2, "No such file", "rows.json")) == "rows.json: No such file"
    assert error_line(ValueError("math domain error")) == "ValueError: math domain error"
    assert error_line(KeyError("labels")) == "KeyError: 'labels'"


def test_a_text_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "page.html"
    write_text(path, "one\r\n")
    assert path.read_bytes() == b"one\r\n"
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "two\ud800")
    monkeypatch.setattr(Path, "replace", _refuse_to_replace)
    with pytest.raises(OSError, match="no space left"):
        write_text(path, "three")
    assert path.read_bytes() == b"one\r\n"
    assert list(tmp_path.iterdir()) == [path]


def _refuse_to_replace(*_: object) -> None:
    raise OSError("no space left")


def test_a_device_is_written_to_and_not_replaced() -> None:
    write_text(Path("/dev/null"), "page")
    assert not Path("/dev/null").is_file()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a\0b"])
def test_a_path_is_no_file_name(name: str) -> None:
    assert not is_file_name(name)
    assert is_file_name("a b.ckpt")
