from __future__ import annotations

import csv
from collections.abc import Callable

import pytest

from data_modules.records import csv_files
from data_modules.records.readers import read_records

Write = Callable[..., str]


def read(path: str) -> tuple[list[tuple[str, ...]], list[str]]:
    """Rows, and what was rejected, by place."""
    rejected: list[str] = []
    rows = [tuple(record.fields.values()) for record in read_records(path, reject=rejected.append)]
    return rows, [message.removeprefix(path) for message in rejected]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b,a\n1,2,3\n", r"a\.csv:1: duplicate column 'a' in the header"),
        ("\n\na,b,\n1,2,3\n", r"a\.csv:3: column 3 has no name in the header; .*index=False"),
        (",a\n0,1\n", r"a\.csv:1: column 1 has no name in the header"),
        ('a," "\n0,1\n', r"a\.csv:1: column 2 has no name in the header"),
        (b"\xef\xbb\xbf\xef\xbb\xbfa,b\n0,1\n", r"a\.csv:1: the file starts with two byte order marks"),
        (b"a,b\xff\n0,1\n", r"a\.csv:1: not UTF-8 \(byte 0xff\)"),
        ("a,b\n0,1\n".encode("utf-16"), r"a\.csv: UTF-16 \(it begins with"),
        ("a,b\n0,1\n".encode("utf-16-le"), r"a\.csv:1: contains a null character"),
        ("a,b\n", r"a\.csv: no records"),
        ('a,b\n0,1\n"2,3\n4,5\n', r"a\.csv:3: not valid CSV \(unexpected end of data\).*quote seems to be left open"),
        ('a,b\n0,1\n"2"x\n",3\n4,5\n', r"a\.csv:4: not valid CSV .*quote seems to be left open"),
        ('a,b\n0,1\n"say "hi\nnow",3\n4,5\n', r"a\.csv:3: not valid CSV .*quote seems to be left open"),
        ('a,b\n0,"1\n2" 3\n4,5\n', r"a\.csv:2: not valid CSV .*quote seems to be left open"),
    ],
)
def test_csv_file_with_ambiguous_rows_or_columns_is_refused(write: Write, content: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(write("a.csv", content))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (b"1", "the row has 1 column; expected 2 as in the header (a, b)"),
        (b"1,2,3", "the row has 3 columns; expected 2 as in the header (a, b)"),
        (b'"say "hi" now",2', "not valid CSV (',' expected after '\"')"),
        (b"1,caf\xe9", "not UTF-8 (byte 0xe9)"),
        (b"1,\x00", "contains a null character"),
    ],
)
def test_only_the_faulty_row_is_dropped(write: Write, row: bytes, message: str) -> None:
    rows, rejected = read(write("a.csv", b'a,b\n0,"two\nlines"\n\n' + row + b"\n8,9\n"))
    assert rows == [("0", "two\nlines"), ("8", "9")]
    assert len(rejected) == 1
    assert rejected[0].startswith(f":5: {message}")


def test_long_fields_are_read_and_the_process_wide_limit_is_restored(
    write: Write,
) -> None:
    before = csv.field_size_limit(1000)
    try:
        rows, rejected = read(write("a.csv", f'a,b\n{"x" * 200_000},"{"y" * 140_000}\nz"\n'))
        assert csv.field_size_limit() == 1000
    finally:
        csv.field_size_limit(before)
    assert [list(map(len, row)) for row in rows] == [[200_000, 140_002]]
    assert rejected == []


def test_only_a_too_long_row_is_dropped_unless_a_quote_is_open(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_files, "MAX_LINE", 20)
    path = write("a.csv", "a,b\n0,1\n" + "x" * 70 + ',"2"\r\n3,4\n')
    rows, rejected = read(path)
    assert rows == [("0", "1"), ("3", "4")]
    assert [message.partition(": ")[0] for message in rejected] == [":3"]
    for content in ('a,b\n"' + "x" * 70 + "\n2,3\n", 'a,b\n0,"1\n' + "x" * 70 + '"\n2,3\n', 'a,b\n0,"' + "x\n" * 20):
        with pytest.raises(ValueError, match=r"a\.csv:2: .*A quote seems to be left open"):
            read(write("a.csv", content))


def test_every_line_ending_is_read(write: Write) -> None:
    for ending in ("\n", "\r\n", "\r"):
        assert read(write("a.csv", ending.join(["a,b", "0,1", "2,3"]))) == ([("0", "1"), ("2", "3")], [])


def test_tsv_file_has_tabs_between_fields(write: Write) -> None:
    rows, rejected = read(write("a.tsv", 'a\tb\n0,5\t"two\nlines"\n1;5\t"a ""quoted"" word"\n'))
    assert rows == [("0,5", "two\nlines"), ("1;5", 'a "quoted" word')]
    assert rejected == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "a;b\n0;1\n", r"separated by ';'; expected commas\. .*\(in pandas: `to_csv`\)\.$"),
        ("a.csv", "a\tb\n0\t1\n", r"separated by '\\t'; expected commas\. .*, or name it \.tsv\.$"),
        ("a.tsv", "a,b\n0,1\n", r"separated by ','; expected tabs\. .*, or name it \.csv\.$"),
    ],
)
def test_another_separator_is_refused_with_the_fix(write: Write, name: str, content: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(write(name, content))
