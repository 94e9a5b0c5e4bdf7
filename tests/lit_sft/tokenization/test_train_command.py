"""`tokenizer train`: what it prints, what it reads, and one message for each mistake."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lit_sft.__main__ import main
from tests.lit_sft.tokenization.conftest import sentences

Write = Callable[..., str]


def status(*arguments: str) -> int:
    return main(["tokenizer", "train", *arguments])


def test_command_prints_the_entries_and_the_roles(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write("texts.txt", "\n".join(sentences(50)))
    assert status(file, "--vocab_size", "300", "--output", str(tmp_path / "tok")) == 0
    out = capsys.readouterr().out
    assert "300 entries: 4 special tokens, 256 bytes, 40 merges" in out
    assert "eos <|endoftext|>, pad <|pad|>, bos none" in out


@pytest.mark.parametrize("name", ["records.jsonl", "records.json"])
def test_every_text_of_a_conversation_is_read(write: Write, tmp_path: Path, name: str) -> None:
    rows = [
        {"system": "system", "instruction": "question", "input": "context", "output": "answer"},
        {"instruction": "no answer yet"},
    ]
    assert status(write(name, rows), "--vocab_size", "270", "--output", str(tmp_path / "tok")) == 0
    report = json.loads((tmp_path / "tok" / "training.json").read_text(encoding="utf-8"))
    assert report["sources"][0]["texts"] == 5
    assert report["bytes"] == len("systemquestioncontextanswerno answer yet")


@pytest.mark.parametrize("columns", ["body", "{text: body}"])
def test_text_may_be_in_any_column(write: Write, tmp_path: Path, columns: str) -> None:
    file = write("rows.csv", "title,body\nx,aaa\ny,bbbb\n")
    arguments = (file, "--columns", columns, "--vocab_size", "260", "--output", str(tmp_path / "tok"))
    assert status(*arguments) == 0
    report = json.loads((tmp_path / "tok" / "training.json").read_text(encoding="utf-8"))
    assert report["bytes"] == 7


def test_special_token_in_the_text_is_reported_with_its_place(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write("texts.txt", "one\ntwo <|im_end|> two\n")
    assert status(file, "--vocab_size", "260", "--output", str(tmp_path / "tok")) == 0
    message = " ".join(capsys.readouterr().err.split())
    assert f"the special token <|im_end|> occurs in 1 text, first at {file}:2" in message


def test_fewer_entries_than_asked_for_are_printed(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(write("t.txt", "ab ab"), "--vocab_size", "5000", "--output", str(tmp_path / "tok")) == 0
    assert "261 entries instead of 5,000: no other pair occurs at least 2 times" in capsys.readouterr().err


def test_invalid_records_are_dropped_on_request(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write("rows.jsonl", '{"text": "good"}\n{"text": 3}\nnot json\n')
    arguments = (file, "--vocab_size", "260", "--output", str(tmp_path / "tok"))
    assert status(*arguments) == 2
    message = capsys.readouterr().err
    assert f"{file}:2: " in message
    assert "--on_invalid drop" in message
    assert "--data." not in message
    assert status(*arguments, "--on_invalid", "drop") == 0
    assert "2 invalid records skipped" in capsys.readouterr().err


TEXT = "lamp lamp lamp"
MISTAKES = {
    "no command": ((), "no command: expected train or compare"),
    "missing file": (("nowhere.txt", "--vocab_size", "300"), "nowhere.txt: no such file or folder"),
    "empty file": (("EMPTY", "--vocab_size", "300"), "the file is empty"),
    "blank text": (("BLANK", "--vocab_size", "300"), "no records"),
    "small vocabulary": (("FILE", "--vocab_size", "259"), "256 bytes and 4 special tokens take 260 entries"),
    "duplicate": (("FILE", "--vocab_size", "300", "--special_tokens", "<a>", "<a>"), "'<a>' is given 2 times"),
    "blank token": (("FILE", "--vocab_size", "300", "--special_tokens", " "), "is blank"),
    "eos": (("FILE", "--vocab_size", "300", "--eos_token", "<e>", "--special_tokens", "<a>"), "--eos_token <e>: not"),
    "marker": (("FILE", "--vocab_size", "300", "--special_tokens", "<a>"), "chatml: writes <|im_start|>, <|im_end|>"),
    "template": (("FILE", "--vocab_size", "300", "--chat_template", "chatmk"), "did you mean chatml"),
    "no template": (("FILE", "--vocab_size", "300", "--chat_template", "no.jinja"), "no.jinja: no such file"),
    "bad template": (("FILE", "--vocab_size", "300", "--chat_template", "JINJA"), "not a Jinja template"),
    "column": (("ROWS", "--vocab_size", "300", "--columns", "boby"), "did you mean body"),
    "size": (("FILE", "--vocab_size", "300", "--max_bytes", "much"), "--max_bytes much: expected a size such as"),
    "small sample": (
        ("FILE", "--vocab_size", "300", "--max_bytes", "3"),
        "no text fits into the sample; raise it to 14",
    ),
    "memory": (("FILE", "--vocab_size", "300", "--max_memory", "1MB"), "--max_memory 1,000,000: too little"),
    "frequency": (("FILE", "--vocab_size", "300", "--min_frequency", "0"), "--min_frequency 0: expected at least 1"),
    "no size": (("FILE",), "--vocab_size: not given"),
    "output": (("FILE", "--vocab_size", "300", "--output", "FILE"), "this is a file; expected a new folder"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_one_message(mistake: str, write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, expected = MISTAKES[mistake]
    files = {
        "FILE": write("a.txt", TEXT),
        "EMPTY": write("b.txt", ""),
        "BLANK": write("c.txt", "\n \n"),
        "ROWS": write("d.csv", "title,body\nx,aaa\n"),
        "JINJA": write("e.jinja", "{% if %}"),
    }
    given = [files.get(argument, argument) for argument in arguments]
    given += [] if not given or "--output" in given else ["--output", str(tmp_path / "tok")]
    assert main(["tokenizer", *(["train"] if given else []), *given]) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert expected in message
    assert "Traceback" not in message
    assert not (tmp_path / "tok").exists()
