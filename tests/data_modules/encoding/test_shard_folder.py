from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from data_modules.encoding import shard_folder
from data_modules.encoding.text_cache import encode_texts
from data_modules.encoding.text_encoder import TextEncoder
from data_modules.errors import UserError
from data_modules.records.splits import Sources
from tests.waiting import wait_until


@pytest.fixture
def encode(tmp_path: Path, write: Callable[..., str], tokenizer: PreTrainedTokenizerFast) -> Callable[[], Path]:
    file = write("a.jsonl", [{"text": f"Text {n}."} for n in range(30)])

    def _encode(cache: Path = tmp_path / "cache") -> Path:
        return encode_texts(Sources({"train": [file]}), (), None, TextEncoder(tokenizer), cache)

    return _encode


def test_a_second_process_waits_for_the_first(
    encode: Callable[[], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[str] = []
    folder = encode()
    shard_folder.clear(folder)
    monkeypatch.setattr(shard_folder, "_PAUSE", 0.01)

    def is_told() -> bool:
        told.append(capsys.readouterr().err)
        return "another process is encoding these texts; waiting for it" in "".join(told)

    with shard_folder.locked(folder):
        second = threading.Thread(target=encode)
        second.start()
        wait_until(is_told)
        assert list(folder.iterdir()) == []
    second.join()
    assert shard_folder.is_complete(folder)
    assert "".join(told).count("waiting") == 1


def test_a_file_system_without_locks_is_refused(encode: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(shard_folder.fcntl, "flock", flock)
    with pytest.raises(UserError, match=r"this file system has no locks \(No locks available\)"):
        encode()


def test_a_cache_that_cannot_be_written_to_is_refused(encode: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--data.cache_dir .*file: cannot write there .*choose another folder"):
        encode(tmp_path / "file")


def test_large_folders_are_read_again_only_if_a_file_has_changed(
    encode: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    digests = shard_folder.file_digests

    def counted(paths: list[Path]) -> Any:
        read.append(len(paths))
        return digests(paths)

    monkeypatch.setattr(shard_folder, "_ALWAYS_READ", 10)
    monkeypatch.setattr(shard_folder, "is_settled", lambda _: True)
    monkeypatch.setattr(shard_folder, "file_digests", counted)
    folder = encode()
    encode()
    encode()
    assert len(read) == 1
    before = (folder / "train.bytes").read_bytes()
    (folder / "train.bytes").write_bytes(b"\1" + before[1:])
    os.utime(folder / "train.bytes", ns=(0, 0))
    with pytest.warns(UserWarning, match="damaged; encoding them again"):
        encode()
    assert (folder / "train.bytes").read_bytes() == before
