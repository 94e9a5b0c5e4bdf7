from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_modules.errors import UserError
from data_modules.records import documents
from data_modules.records.content_keys import content_key, document_key
from data_modules.records.conversation import Conversation, Message, Role
from data_modules.records.counts import RecordCounts
from data_modules.records.documents import Document, read_documents
from data_modules.records.splits import Sources, keys_of

Write = Callable[..., str]

TXT = "\ufeffOne\ntwo  \n\n \nThree\r\nfour\n\n\n"


def read(file: str, **settings: Any) -> tuple[list[Document], RecordCounts]:
    counts = RecordCounts(settings.get("on_invalid", "error"))
    return list(read_documents("train", Sources({"train": [file]}, **settings), counts)), counts


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("line", [("One", 1), ("two  ", 2), ("Three", 5), ("four", 6)]),
        ("paragraph", [("One\ntwo  ", 1), ("Three\nfour", 5)]),
        ("file", [("One\ntwo  \n\n \nThree\nfour", 1)]),
    ],
)
def test_documents_of_a_txt_file(write: Write, unit: str, expected: list[tuple[str, int]]) -> None:
    file = write("a.txt", TXT.encode())
    found, counts = read(file, txt_documents=unit)
    assert [(each.text, each.origin) for each in found] == [(text, f"{file}:{line}") for text, line in expected]
    assert counts.records_read == len(expected)


@pytest.mark.parametrize(("unit", "expected"), [("paragraph", ["one\ntwo", "five"]), ("file", [])])
def test_a_document_with_a_damaged_line_is_dropped_whole(write: Write, unit: str, expected: list[str]) -> None:
    file = write("a.txt", b"one\ntwo\n\nthree\n\xff\xfe\nfour\n\nfive\n")
    found, counts = read(file, txt_documents=unit, on_invalid="drop")
    assert [each.text for each in found] == expected
    assert len(counts.invalid) == 1
    assert counts.invalid[0].startswith(f"{file}:5: ")


def test_a_document_that_is_too_long_is_refused_without_being_kept(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "MAX_DOCUMENT_BYTES", 10)
    file = write("a.txt", "a" * 20 + "\n" + "b" * 30 + "\n\nshort\n")
    found, counts = read(file, txt_documents="paragraph", on_invalid="drop")
    assert [each.text for each in found] == ["short"]
    assert counts.invalid == [
        f"{file}:1: a document of 52 bytes; expected at most 10. Separate documents by blank lines with "
        "`--data.txt_documents paragraph`, or split the file."
    ]
    rows = write("b.jsonl", '{"text": "ééééééé"}\n{"text": "short"}\n')
    found, counts = read(rows, on_invalid="drop")
    assert [each.text for each in found] == ["short"]
    assert "14 bytes of text; expected at most 10 per document" in counts.invalid[0]


def test_a_line_of_a_document_may_be_longer_than_a_line_of_a_conversation(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    from data_modules.records import csv_files, text_lines

    monkeypatch.setattr(text_lines, "MAX_LINE", 20)
    monkeypatch.setattr(csv_files, "MAX_LINE", 20)
    for file in (
        write("a.jsonl", [{"text": "x" * 50}]),
        write("a.txt", "x" * 50),
        write("a.csv", "text\n" + "x" * 50 + "\n"),
    ):
        assert [each.text for each in read(file)[0]] == ["x" * 50]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": " \n"}, "the text is empty; expected a document"),
        ({"text": None}, "field 'text' is null; expected a string"),
        ({"content": "x"}, "no field 'text'; found content. Set `--data.columns '{text: content}'`, or complete"),
        ({"id": 1}, "no field 'text'; found id. Complete the record, or set `--data.columns '{text: FIELD}'`."),
        ({"messages": []}, "This is a conversation; to fine-tune on it, leave out `data_module: text`. To read one"),
        ({"question": "q", "answer": "a"}, "fine-tune on it, leave out `data_module: text`."),
        ({"prompt": "q", "body": "a"}, "To read one field as plain text, set `--data.columns '{text: body}'`."),
        ({"text": "x", "system": "y"}, "plain text has no system message"),
        ({"text": "x", "article_id": [1]}, "field 'article_id' is a list"),
        ({"text": "\ud800"}, "the lone surrogate '\\ud800'"),
    ],
)
def test_records_that_are_no_documents_are_refused(write: Write, row: dict[str, Any], message: str) -> None:
    file = write("a.jsonl", [row])
    with pytest.raises(UserError) as error:
        read(file)
    assert str(error.value).startswith(f"{file}:1: ")
    assert message in str(error.value)
    assert "--data.format" not in str(error.value)
    assert "{messages: " not in str(error.value)


def test_columns_and_unknown_fields(write: Write) -> None:
    file = write("a.jsonl", [{"content": "x", "url": "y", "article_id": 7}])
    found, counts = read(file, columns={"text": "content"})
    assert found == [Document("x", f"{file}:1", "7")]
    assert counts.unknown_fields == {file: {"url": 1}}
    assert counts.columns_found == {"content"}


@pytest.mark.parametrize("keep_together", ["exact", "normalized", "prompt"])
def test_keys_are_those_of_a_conversation(keep_together: Any) -> None:
    for text in ("One\n two.", "第一，", "…"):
        conversation = Conversation((Message(Role.TEXT, text),), "x:1", "7")
        assert document_key(text, keep_together) == content_key(conversation, keep_together)
        assert Document(text, "x:1", "7").keys(keep_together) == keys_of(conversation, keep_together)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.json"])
def test_the_bytes_read_are_reported(write: Write, name: str) -> None:
    rows = [{"text": f"text {n}"} for n in range(100)]
    plain = "text\n" + "".join(f"{row['text']}\n" for row in rows)
    file = write(name, rows if "json" in name else plain)
    seen: list[int] = []
    list(read_documents("train", Sources({"train": [file]}), RecordCounts(), on_bytes=seen.append))
    size = Path(file).stat().st_size
    assert 0.8 * size < sum(seen) <= size
