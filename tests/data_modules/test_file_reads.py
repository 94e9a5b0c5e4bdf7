"""How often data files are opened: once for their digest, and once more only if they must be encoded."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data_modules import digests
from data_modules.sft_data_module import SFTDataModule
from tests.conftest import alpaca_rows, byte_tokenizer

_opened: list[str] = []


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str | os.PathLike):
        _opened.append(os.fspath(arguments[0]))


@pytest.fixture(scope="module", autouse=True)
def _hook() -> None:
    sys.addaudithook(_note)  # cannot be removed again


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Files that are old enough for their time stamps to be trusted."""
    (tmp_path / "train.json").write_text(json.dumps(alpaca_rows(60)))
    (tmp_path / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in alpaca_rows(30)))
    for path in tmp_path.iterdir():
        os.utime(path, (time.time() - 100,) * 2)
    return {path.name: str(path) for path in tmp_path.iterdir()}


@pytest.fixture(autouse=True)
def _old_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    # the change time of a file cannot be set
    monkeypatch.setattr("data_modules.digests._SETTLED_SECONDS", -1.0)


def start(files: dict[str, str], **settings: Any) -> Counter[str]:
    """How often each file is opened for a training run."""
    _opened.clear()
    module = SFTDataModule(list(files.values()), tokenizer=byte_tokenizer(), val_fraction=0.2, **settings)
    module.prepare_data()
    module.setup("fit")
    return Counter(name for name, path in files.items() for each in _opened if each == path)


@pytest.mark.parametrize("settings", [{}, {"encoding_processes": 1, "keep_together": "prompt"}])
def test_files_are_parsed_once_and_then_only_hashed(files: dict[str, str], settings: dict[str, Any]) -> None:
    cold = start(files, test_fraction=0.2, **settings)
    assert cold == dict.fromkeys(files, 3)  # the digest, the byte order mark, the records of all three splits
    digests._computed.clear()  # as in a new process
    assert start(files, test_fraction=0.2, **settings) == dict.fromkeys(files, 1)
    assert start(files, test_fraction=0.2, **settings) == {}


def test_a_changed_file_is_read_again(files: dict[str, str]) -> None:
    start(files)
    path = files["train.json"]
    before = os.stat(path)
    Path(path).write_text(Path(path).read_text().replace("Count to 7", "Count in 7", 1))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # the same size and time of modification
    assert start(files)["train.json"] == 3
