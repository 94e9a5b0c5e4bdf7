from __future__ import annotations

from collections.abc import Callable

import pytest

from data_modules.records import json_files, text_lines
from data_modules.records.readers import read_records

Write = Callable[..., str]


def read(path: str) -> tuple[list[object], list[str]]:
    """The values of the field x, and what was rejected, by place."""
    rejected: list[str] = []
    values = [record.fields.get("x") for record in read_records(path, reject=rejected.append)]
    return values, [message.removeprefix(path) for message in rejected]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"x": 1}]\n[{"x": 2}]', r"a\.json:2: found '\[\{\"x\": 2\}\]' after the end of the list"),
        ('[{"x": 1}] junk', r"a\.json:1: found 'junk' after the end"),
        ('[{"x": 1}]]', r"a\.json:1: found '\]' after the end"),
        ('[{"x": 1}],', r"a\.json:1: found ',' after the end"),
        ('[{"x": 1}]\n\x00', r"a\.json:2: found '\\x00' after the end"),
        ('[{"x": 1},\n]', r"a\.json:1: found ',' before the end of the list"),
        ('[\n,{"x": 1}]', r"a\.json:2: not valid JSON"),
        ('[{"x": 1},,{"x": 2}]', r"a\.json:1: not valid JSON"),
        ("[", r"a\.json: the list does not end with '\]'"),
        ("[]", r"a\.json: no records"),
        (" \n", r"a\.json: no records"),
        (
            b'\xef\xbb\xbf\xef\xbb\xbf[{"x": 1}]',
            r"a\.json:1: found '\\ufeff",
        ),
        (b'\xe9[{"x": 1}]', r"a\.json: not UTF-8 \(byte 0xe9\); it looks like Windows-1252"),
        ('[{"x": 1}]'.encode("utf-16"), r"a\.json: UTF-16 \(it begins with"),
    ],
)
@pytest.mark.parametrize("lenient", [True, False])
def test_json_file_that_is_not_a_single_list_is_refused_with_its_line(
    write: Write, content: str | bytes, message: str, lenient: bool
) -> None:
    path = write("a.json", content)

    def reject(fault: str) -> None:
        assert lenient, fault

    with pytest.raises(ValueError, match=message):
        list(read_records(path, reject=reject))


def test_json_list_may_end_with_spaces(write: Write) -> None:
    assert read(write("a.json", '\ufeff \n[{"x": 1} ] \r\n\t')) == ([1], [])


FAULTY = {
    "duplicate": (b'{"x": 2, "x": 3}', "duplicate field 'x'; keep one of the two."),
    "nested duplicate": (b'{"x": [{"y": {"z": 1, "z": 1}}, "] }"]}', "duplicate field 'z'; keep one of the two."),
    "integer": (b'{"x": -' + b"9" * 5000 + b"}", "an integer with thousands of digits"),
    "deep": (b'{"x": "[\\"", "y": ' + b"[" * 50_000 + b'"]"' + b"]" * 50_000 + b"}", "nested too deeply"),
    "bytes": (b'{"x": "caf\xe9"}', "not UTF-8"),
    "list": (b"[1, [2]]", "found a list; expected an object"),
    "number": (b"7", "found the number 7; expected an object"),
    "null": (b"null", "found null; expected an object"),
    "long number": (b"9" * 5000, "an integer with thousands of digits"),
}


@pytest.mark.parametrize("fault", FAULTY)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_only_the_unusable_record_is_dropped(write: Write, name: str, fault: str) -> None:
    raw, message = FAULTY[fault]
    rows = [b'{"x": 1}', raw, b'{"x": 4}']
    path = write(name, b"[" + b",\n".join(rows) + b"]" if name == "a.json" else b"\n".join(rows))
    values, rejected = read(path)
    assert values == [1, 4]
    assert len(rejected) == 1
    assert rejected[0].startswith(f":2: {message}")


def test_faulty_records_on_one_line_are_distinguished(write: Write) -> None:
    values, rejected = read(write("a.json", '[{"x": 1}, {"x": 2, "x": 2}, 3, {"x": 4}]'))
    assert values == [1, 4]
    assert [message.partition(": ")[0] for message in rejected] == [":1 (record 2)", ":1 (record 3)"]


def test_broken_json_after_a_duplicate_field_is_still_refused(write: Write) -> None:
    with pytest.raises(ValueError, match=r"a\.json:2: not valid JSON"):
        read(write("a.json", '[{"y": {"x": 1, "x": 2},\n "z" 3}, {"x": 4}]'))


@pytest.mark.parametrize(
    "line",
    [
        b'{"x": \x00}',
        b'{"x": "\x00"}',
        b'{"x": "\xff"}',
        b'{"x": 1',
        b'{"x": 1} {"x": 2}',
        b'\xef\xbb\xbf\xef\xbb\xbf{"x": 1}',
        b"]" * 3,
        b'{"x": 1}\r{"x": 2}',
    ],
)
def test_only_the_faulty_line_is_dropped(write: Write, line: bytes) -> None:
    values, rejected = read(write("a.jsonl", b'{"x": 1}\n' + line + b'\n\xef\xbb\xbf{"x": 4}'))
    assert values == [1, 4]
    assert len(rejected) == 1
    assert rejected[0].startswith(":2: ")


def test_only_the_too_long_line_is_dropped(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_lines, "MAX_LINE", 20)
    exact = b'{"x": "%s"}' % (b"e" * 11)
    assert len(exact) == 20
    lines = [exact, b"y" * 21, b"z" * 45, exact, b"w" * 40]
    values, rejected = read(write("a.jsonl", b"\n".join(lines)))
    assert values == ["e" * 11] * 2
    assert [message.partition(": ")[0] for message in rejected] == [":2", ":3", ":5"]
    assert all("a line of more than 20 bytes; split the record" in message for message in rejected)


def test_names_of_an_object_are_compared_a_linear_number_of_times() -> None:
    comparisons = 0

    class Name(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            nonlocal comparisons
            comparisons += 1
            return str.__eq__(self, other)

    names = [Name(f"n{n}") for n in (*range(2000), 1999)]
    with pytest.raises(ValueError, match="duplicate field 'n1999'"):
        json_files._object([(name, 0) for name in names])
    assert 0 < comparisons < 10 * len(names)
