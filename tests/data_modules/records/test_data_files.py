from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from data_modules.records.data_files import data_files, skipped_files
from data_modules.records.readers import read_records, source_fingerprint

Write = Callable[..., str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "rows"
    (folder / "more").mkdir(parents=True)
    (folder / "more" / "b.jsonl").write_text('{"x": 2}\n')
    (folder / "a.txt").write_text("one\n")
    return folder


def refused(source: Path) -> str:
    """The error raised both when the source is read and when it is hashed."""
    with pytest.raises((ValueError, FileNotFoundError)) as reading:
        list(read_records(str(source), reject=print))
    with pytest.raises((ValueError, FileNotFoundError)) as digesting:
        source_fingerprint(str(source))
    assert str(reading.value) == str(digesting.value)
    return str(reading.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("inside", [True, False])
def test_named_pipe_is_refused_without_waiting(folder: Path, inside: bool) -> None:
    os.mkfifo(folder / "c.jsonl")
    message = refused(folder if inside else folder / "c.jsonl")
    assert message.startswith(f"{folder / 'c.jsonl'}: a named pipe, which may never end")


def test_infinite_device_is_refused(folder: Path) -> None:
    (folder / "c.jsonl").symlink_to("/dev/zero")
    assert refused(folder).startswith(f"{folder / 'c.jsonl'}: a character device")
    assert refused(Path("/dev/zero")).startswith("/dev/zero: a character device")


def test_socket_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)  # the name of a socket has at most a hundred characters
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("c.jsonl")
        assert refused(Path("c.jsonl")).startswith("c.jsonl: a socket")


@pytest.mark.parametrize("inside", [True, False])
def test_broken_link_is_refused(folder: Path, inside: bool) -> None:
    link = folder / "c.jsonl"
    link.symlink_to("gone.jsonl")
    assert refused(folder if inside else link).startswith(
        f"{link}: a symbolic link to gone.jsonl, which does not exist"
    )
    link.unlink()
    link.symlink_to("c.jsonl")
    assert refused(folder if inside else link).startswith(f"{link}: a symbolic link that points back to itself")


def test_linked_folder_is_read_once(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "c.txt").write_text("three\n")
    (folder / "linked").symlink_to("../elsewhere")
    names = [str(file.relative_to(folder)) for file in data_files(str(folder))]
    assert names == ["a.txt", "linked/c.txt", "more/b.jsonl"]
    (folder / "more" / "up").symlink_to("..")
    assert "a symbolic link to a folder that is already read" in refused(folder)
    (folder / "more" / "up").unlink()
    (folder / "twin").symlink_to("more")
    assert "would be read twice" in refused(folder)


def test_hidden_and_unknown_files_of_a_folder_are_skipped_and_named(folder: Path) -> None:
    assert skipped_files(str(folder)) == []
    assert skipped_files(str(folder / "a.txt")) == []
    (folder / "more" / ".ipynb_checkpoints").mkdir()
    (folder / "more" / ".ipynb_checkpoints" / "b-checkpoint.jsonl").write_text('{"x": 2}\n')
    for name in ("README.md", "more/rows.jsonl.gz", ".hidden.jsonl", "LICENSE"):
        (folder / name).write_text("")
    assert [file.name for file in data_files(str(folder))] == ["a.txt", "b.jsonl"]
    (line,) = skipped_files(str(folder))
    assert line.startswith(
        f"{folder}: skipped .hidden.jsonl, LICENSE, README.md, more/.ipynb_checkpoints, more/rows.jsonl.gz (hidden, or "
    )
    (folder / "z.xml").write_text("")
    assert "more/rows.jsonl.gz and 1 more (" in skipped_files(str(folder))[0]


def test_file_whose_name_is_not_utf8_is_refused(folder: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jsonl")
    try:
        (folder / name).write_text('{"x": 1}\n')
    except OSError:
        pytest.skip("this file system does not allow such names")
    message = refused(folder)
    assert message.isascii()
    assert "the file name is not UTF-8" in message
