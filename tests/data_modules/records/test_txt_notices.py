"""Notices about .txt files that should perhaps be read differently."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from data_modules.records import txt_notices as module
from data_modules.records.splits import Sources, notices_in
from data_modules.records.txt_notices import looks_like_json_lines, looks_wrapped, txt_notices

Write = Callable[..., str]

WRAPPED = "a line of a book that goes on in the next line, as if typed by hand\n" * 250
JSON_LINES = '\n {"text": "One."}\n{"text": "Two."}\n'


@pytest.mark.parametrize(
    ("line", "is_wrapped"),
    [
        ("a line of a book that goes on in the next line, as if typed by hand", True),
        ("A document of one line, which ends with a full stop as it should be.", False),
        ("a name", False),
        ("a very long line " * 20, False),
    ],
)
def test_lines_of_a_fixed_width_are_noticed(write: Write, line: str, is_wrapped: bool) -> None:
    assert looks_wrapped(Path(write("a.txt", f"{line}\n" * 250))) == is_wrapped
    assert not looks_wrapped(Path(write("b.txt", f"{line}\n" * 50)))


@pytest.mark.parametrize(
    ("content", "is_json"),
    [
        (JSON_LINES, True),
        ('{"text": "the first line decides"}\nprose\n', True),
        ("{}\n", False),
        ("{a set of words}\n", False),
        ('["a", "list"]\n', False),
        ('Prose.\n{"text": "One."}\n', False),
        ("\n\n", False),
        ('{"a":' * 100_000, False),
    ],
)
def test_json_lines_in_a_txt_file_are_noticed(write: Write, content: str, is_json: bool) -> None:
    assert looks_like_json_lines(Path(write("a.txt", content))) == is_json


def test_notices_name_the_file_and_the_remedy(write: Write) -> None:
    (notice,) = txt_notices(file := write("a.txt", JSON_LINES), asks_for_unit=False)
    assert notice.startswith(f"{file}: the first line is a JSON object")
    assert notice.endswith("If these are JSON lines, rename to .jsonl.")
    (notice,) = txt_notices(file := write("b.txt", WRAPPED), asks_for_unit=True)
    assert notice.startswith(f"{file}: the lines look wrapped at a fixed width")
    assert "--data.txt_documents paragraph" in notice
    assert txt_notices(file, asks_for_unit=False) == []
    assert txt_notices(write("c.jsonl", [{"text": "x"}]), asks_for_unit=True) == []
    assert txt_notices("org/name", asks_for_unit=True) == []


def test_files_of_a_folder_share_a_notice(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "books").mkdir()
    for number in range(7):
        write(f"books/{number}.txt", WRAPPED)
    write("books/rows.txt", JSON_LINES)
    as_json, wrapped = txt_notices(str(tmp_path / "books"), asks_for_unit=True)
    assert as_json.startswith(f"{tmp_path / 'books'}: rows.txt: the first line is a JSON object")
    assert wrapped.startswith(f"{tmp_path / 'books'}: 0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 2 more: the lines look")
    monkeypatch.setattr(module, "_LOOKED_AT", 1)
    assert txt_notices(str(tmp_path / "books"), asks_for_unit=True)[0].startswith(f"{tmp_path / 'books'}: 0.txt: the")


def test_other_units_are_not_asked_for(write: Write) -> None:
    files = {"train": [write("a.txt", WRAPPED)], "val": [write("b.txt", json.dumps({"text": "x"}))]}
    assert [len(found) for found in notices_in(Sources(files), asks_for_unit=True).values()] == [1, 1]
    for sources, asks in ((Sources(files, txt_documents="file"), True), (Sources(files), False)):
        assert [len(found) for found in notices_in(sources, asks_for_unit=asks).values()] == [0, 1]
