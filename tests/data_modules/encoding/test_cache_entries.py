from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from data_modules.encoding.cache import encode_sources, load_split
from data_modules.encoding.cache_entries import new_folder
from data_modules.encoding.encoder import Encoder
from data_modules.encoding.example import Example
from data_modules.encoding.ledger import Ledger
from data_modules.records.conversation import Conversation
from data_modules.records.splits import Sources
from data_modules.rendering.templates import resolve_template
from tests.conftest import alpaca_rows

Write = Callable[..., str]


@pytest.fixture
def encoder(tokenizer: PreTrainedTokenizerFast) -> Encoder:
    return Encoder(tokenizer, resolve_template("chatml", tokenizer), 200)


@pytest.fixture
def sources(write: Write) -> Sources:
    return Sources({"train": [write("a.jsonl", alpaca_rows(40))]}, {"val": 0.3})


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(bytes(raw))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a split cut short": lambda folder: cut(folder / "train.arrow"),
    "a flipped bit": lambda folder: flip(folder / "val.arrow"),
    "a missing split": lambda folder: (folder / "val.arrow").unlink(),
    "an empty split": lambda folder: (folder / "train.arrow").write_bytes(b""),
    "a ledger cut short": lambda folder: cut(folder / "ledgers.json"),
    "a flipped bit in the digests": lambda folder: flip(folder / "digests.json"),
    "no digest of a split": lambda folder: (folder / "digests.json").write_text("{}"),
    "digests cut short": lambda folder: cut(folder / "digests.json"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_cache_is_detected_and_rebuilt(tmp_path: Path, sources: Sources, encoder: Encoder, damage: str) -> None:
    folder = encode_sources(sources, encoder, tmp_path / "cache")
    whole = content(folder)
    DAMAGES[damage](folder)
    with pytest.warns(UserWarning, match=r"the cached data is damaged; encoding the records again") as said:
        assert encode_sources(sources, encoder, tmp_path / "cache") == folder
    assert len(said) == 1
    assert content(folder) == whole
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [folder.name]


def test_intact_cache_is_used_without_a_warning(tmp_path: Path, sources: Sources, encoder: Encoder) -> None:
    folder = encode_sources(sources, encoder, tmp_path)
    before = {file: file.stat().st_ino for file in folder.iterdir()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encode_sources(sources, encoder, tmp_path)
    assert {file: file.stat().st_ino for file in folder.iterdir()} == before


def test_cache_without_digests_is_rebuilt_without_a_warning(tmp_path: Path, sources: Sources, encoder: Encoder) -> None:
    folder = encode_sources(sources, encoder, tmp_path)
    whole = content(folder)
    (folder / "digests.json").unlink()
    cut(folder / "train.arrow")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encode_sources(sources, encoder, tmp_path)
    assert content(folder) == whole


def test_concurrent_writers_do_not_interfere(
    tmp_path: Path, sources: Sources, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the second runs entirely within the first, with the same process id, as may happen on two machines
    real, inner = Encoder.encode, list[Path]()

    def encode(self: Encoder, conversation: Conversation, ledger: Ledger | None = None) -> list[Example]:
        if not inner:
            inner.append(Path())
            inner[0] = encode_sources(sources, encoder, tmp_path / "cache")
        return real(self, conversation, ledger)

    monkeypatch.setattr(Encoder, "encode", encode)
    folder = encode_sources(sources, encoder, tmp_path / "cache")
    assert inner == [folder]
    store = load_split(folder, "train")
    assert store is not None
    assert len(store) > 20
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [folder.name]


def test_folder_that_is_being_read_can_be_replaced(tmp_path: Path, sources: Sources, encoder: Encoder) -> None:
    folder = encode_sources(sources, encoder, tmp_path)
    store = load_split(folder, "train")
    assert store is not None
    before = [example.input_ids.tolist() for example in store]
    flip(folder / "val.arrow")
    with pytest.warns(UserWarning, match="damaged"):
        encode_sources(sources, encoder, tmp_path)
    assert [example.input_ids.tolist() for example in store] == before


def test_cache_inside_a_folder_of_records_is_refused(
    tmp_path: Path, sources: Sources, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    inside = replace(sources, files={"train": sources.files["train"], "test": ["."]})
    with pytest.raises(ValueError, match=r"cache: inside the folder \. of --data\.test"):
        encode_sources(inside, encoder, tmp_path / "cache")


def test_folder_is_not_kept_when_filling_it_fails(tmp_path: Path) -> None:
    def fill(name: str) -> None:
        with new_folder(tmp_path / "data", ["a"]) as partial:
            (partial / name).write_text("half")

    with pytest.raises(FileNotFoundError):
        fill("b")
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_killed_processes_are_deleted_but_not_files_being_written(tmp_path: Path) -> None:
    old, new = time.time() - 25 * 3600, time.time()
    written = {
        "a.partial-" + "0" * 32: (old, old),
        "a.damaged-" + "1" * 32: (old, old),
        "a.partial-" + "2" * 32: (old, new),  # a file in it is being written
        "b.partial-" + "3" * 32: (new, new),
        "my-notes": (old, old),
    }
    for name, (of_folder, of_file) in written.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.arrow").write_bytes(b"x")
        os.utime(tmp_path / name / "train.arrow", (of_file, of_file))
        os.utime(tmp_path / name, (of_folder, of_folder))
    with new_folder(tmp_path / "c", ["train.arrow"]) as partial:
        (partial / "train.arrow").write_bytes(b"y")
    assert {path.name for path in tmp_path.iterdir()} == {*list(written)[2:], "c"}
