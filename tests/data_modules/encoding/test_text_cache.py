from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from data_modules.encoding import pool, shard_writer, text_chunks
from data_modules.encoding.text_cache import encode_texts
from data_modules.encoding.text_encoder import TextEncoder
from data_modules.encoding.token_shards import TokenShards, read_manifest
from data_modules.errors import UserError
from data_modules.records.mix import read_mix
from data_modules.records.splits import Sources, read_splits
from tests.conftest import END

Write = Callable[..., str]

CLEANING = ["nfc", "empty_brackets", {"min_length": {"characters": 12}}, "exact_duplicates", "near_duplicates"]


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_chunks, "_CHUNK_DOCUMENTS", 7)
    monkeypatch.setattr(pool, "_CHUNKS_ALONE", 1)


@pytest.fixture
def encoder(tokenizer: PreTrainedTokenizerFast) -> TextEncoder:
    return TextEncoder(tokenizer)


def rows(count: int) -> list[dict[str, Any]]:
    """Documents in two languages; every tenth is too short, every twentieth much like others, some of one article."""
    english = [f"Document {n}. It ends (). {'More! ' * (n % 5)}" for n in range(count)]
    texts = [text if n % 3 else f"第{n}篇文章。（）很好。" for n, text in enumerate(english)]
    for n in range(7, count, 20):
        texts[n] = " ".join(f"word{i}" for i in range(60)) + f" {n}."
    return [
        {"text": "short" if n % 10 == 0 else text, **({"article_id": n // 6} if n % 4 == 0 else {})}
        for n, text in enumerate(texts)
    ]


def documents(folder: Path, split: str) -> list[str]:
    shards = TokenShards(folder, split)
    parts = [shards.tokens(int(a), int(b)).tolist() for a, b in zip(shards.starts[:-1], shards.starts[1:], strict=True)]
    assert all(part[-1] == END and END not in part[:-1] for part in parts)
    return [bytes(part[:-1]).decode() for part in parts]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_documents_are_in_the_splits_of_a_fine_tuning_run(tmp_path: Path, write: Write, encoder: TextEncoder) -> None:
    texts = [row["text"] for row in rows(300)]
    records = [{"text": f"{text} {n}", **({"article_id": n // 9} if n % 2 else {})} for n, text in enumerate(texts)]
    file = write("a.jsonl", records)
    own = write("test.jsonl", [{"text": f"{texts[5]} 5"}, {"text": "of its own"}])
    sources = Sources({"train": [file, file], "test": [own]}, {"val": 0.2}, 0.7, format="text")
    folder = encode_texts(sources, (), None, encoder, tmp_path / "cache")
    expected: dict[str, list[str]] = {"test": [], "val": [], "train": []}
    for split, conversation in read_splits(sources):
        expected[split].append(conversation.turns[0].content)
    assert {split: documents(folder, split) for split in expected} == expected
    assert min(map(len, expected.values())) > 1


@pytest.mark.parametrize("characters_ahead", [10**9, 500])
def test_the_result_does_not_depend_on_the_number_of_processes(
    tmp_path: Path, write: Write, encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch, characters_ahead: int
) -> None:
    monkeypatch.setattr(pool, "_CHARACTERS_AHEAD", characters_ahead)
    sources = Sources({"train": [write("a.jsonl", rows(200))]}, {"val": 0.1, "test": 0.1})
    folders = [
        encode_texts(sources, (), CLEANING, encoder, tmp_path / str(n), processes=n, shard_tokens=500) for n in (1, 2)
    ]
    one, two = map(contents, folders)
    assert one == two
    assert {"manifest.json", "train-00003.tokens", "train-00003.ends", "train.starts", "val.bytes"} <= set(one)
    assert set(one) == {"manifest.json", *read_manifest(folders[0])["files"]}


def test_everything_read_is_in_the_ledger(tmp_path: Path, write: Write, encoder: TextEncoder) -> None:
    lines = [json.dumps(row) for row in rows(100)]
    file = write("a.jsonl", "\n".join([*lines, "no json", '{"other": 1}', *lines[:5], '{"text": " "}']) + "\n")
    sources = Sources({"train": [file]}, {"val": 0.2}, 0.8, on_invalid="drop")
    folder = encode_texts(sources, (), CLEANING, encoder, tmp_path / "cache")
    splits = read_manifest(folder)["splits"]
    for split, entry in splits.items():
        ledger, characters = entry["ledger"], entry["ledger"]["characters"]
        texts = documents(folder, split)
        assert ledger["records_read"] == (
            ledger["invalid"]["count"] + ledger["dropped"] + ledger["duplicates"] + ledger["documents"]
        )
        assert characters["read"] == (
            characters["cleaned"] + characters["invalid"] + characters["duplicates"] + characters["kept"]
        )
        assert ledger["documents"] == len(texts) == entry["documents"]
        assert characters["kept"] == sum(map(len, texts))
        assert ledger["bytes"] == ledger["tokens"]["text"] == sum(len(text.encode()) for text in texts)
        assert ledger["tokens"]["special"] == len(texts)
        assert not any("()" in text or len(text) < 12 for text in texts)
    train = splits["train"]["ledger"]
    assert train["invalid"]["count"] == 3
    assert train["left_out"] > 5
    assert sum(splits[s]["ledger"]["records_read"] for s in splits) + train["left_out"] == 105 + 3
    dropped = {rule: counts["dropped"] for rule, counts in train["cleaning"]["rules"].items()}
    assert sum(dropped.values()) == train["dropped"]
    assert min(dropped["min_length"], dropped["exact_duplicates"], dropped["near_duplicates"]) > 0


def test_texts_that_become_equal_by_cleaning_are_not_in_two_splits(
    tmp_path: Path, write: Write, encoder: TextEncoder
) -> None:
    held_out = write("val.jsonl", [{"text": f"Text number {n}."} for n in range(20)])
    train = write("train.jsonl", [{"text": f"Text number () {n}."} for n in range(15, 30)])
    sources = Sources({"train": [train], "val": [held_out]})
    folder = encode_texts(sources, (), ["empty_brackets"], encoder, tmp_path / "cache")
    texts = documents(folder, "train")
    assert texts == [f"Text number {n}." for n in range(20, 30)]
    assert read_manifest(folder)["splits"]["train"]["ledger"]["duplicates"] == 5


def test_held_out_documents_do_not_depend_on_cleaning(tmp_path: Path, write: Write, encoder: TextEncoder) -> None:
    sources = Sources({"train": [write("a.jsonl", [{"text": f"Nr. {n} ()"} for n in range(200)])]}, {"val": 0.2})
    plain, clean = (
        documents(encode_texts(sources, (), rules, encoder, tmp_path / "cache"), "val")
        for rules in (None, ["empty_brackets"])
    )
    assert [text.replace(" ()", "") for text in plain] == [text.strip() for text in clean]
    assert 20 < len(plain) < 60


def test_sources_of_a_mixture_have_their_own_cleaning_and_cap(
    tmp_path: Path, write: Write, encoder: TextEncoder
) -> None:
    items = [
        {"name": "a", "files": write("a.jsonl", [{"text": f"a {n} ()"} for n in range(50)]), "cap": 10},
        {"name": "b", "files": write("b.txt", "b one ()\nb two\n"), "cleaning": ["empty_brackets"], "repeats": 2},
    ]
    mix = read_mix(items)
    sources = Sources({"train": [file for source in mix for file in source.files]}, {"val": 0.2})
    folder = encode_texts(sources, mix, None, encoder, tmp_path / "cache")
    texts, entry = documents(folder, "train"), read_manifest(folder)["splits"]["train"]
    assert [text[0] for text in texts] == ["ab"[source] for source in TokenShards(folder, "train").sources]
    assert sum(text.startswith("a") and text.endswith("()") for text in texts) == 10
    assert {"b one", "b two"} >= {text.strip() for text in texts if text.startswith("b")}
    assert entry["ledger"]["sources"]["a"]["documents"] == 10
    assert entry["ledger"]["documents"] == len(texts)
    assert entry["ledger"]["sources"]["a"]["left_out"] == 40 - len(
        [text for text in documents(folder, "val") if text.startswith("a")]
    )


def test_near_duplicates_of_held_out_documents_are_dropped_whatever_the_other_rules_of_their_source(
    tmp_path: Path, write: Write, encoder: TextEncoder
) -> None:
    texts = [" ".join(f"word{n * 31 % 97}x{i}" for i in range(60)) for n in range(12)]
    held_out = write("val.jsonl", [{"text": text} for text in texts[:6]])
    copies = write("train.jsonl", [{"text": text + " once more ()"} for text in texts])
    items = [{"name": "copies", "files": copies, "cleaning": ["nfc", "empty_brackets", "near_duplicates"]}]
    sources = Sources({"train": [copies], "val": [held_out]})
    folder = encode_texts(sources, read_mix(items), ["near_duplicates"], encoder, tmp_path / "cache")
    assert [text.split(" once")[0] for text in documents(folder, "train")] == texts[6:]
    rules = read_manifest(folder)["splits"]["train"]["ledger"]["sources"]["copies"]["cleaning"]["rules"]
    assert rules["near_duplicates"]["dropped"] == 6


@pytest.mark.parametrize("damage", ["byte", "size", "missing", "manifest"])
def test_damaged_shards_are_encoded_again(tmp_path: Path, write: Write, encoder: TextEncoder, damage: str) -> None:
    sources = Sources({"train": [write("a.jsonl", rows(50))]}, {"val": 0.2})
    folder = encode_texts(sources, (), None, encoder, tmp_path / "cache", shard_tokens=500)
    before = contents(folder)
    path = folder / ("manifest.json" if damage == "manifest" else "train-00001.tokens")
    raw = bytearray(path.read_bytes())
    raw[9] ^= 1
    path.write_bytes(raw[:-2] if damage == "size" else b"{" if damage == "manifest" else raw)
    if damage == "missing":
        path.unlink()
    with pytest.warns(UserWarning, match="damaged; encoding them again"):
        encode_texts(sources, (), None, encoder, tmp_path / "cache", shard_tokens=500)
    assert contents(folder) == before


def test_complete_shards_are_not_written_again(
    tmp_path: Path, write: Write, encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = Sources({"train": [write("a.jsonl", rows(50))]})
    folder = encode_texts(sources, (), None, encoder, tmp_path / "cache")
    monkeypatch.setattr(shard_writer.ShardWriter, "__init__", None)
    assert encode_texts(sources, (), None, encoder, tmp_path / "cache", processes=2) == folder
    with pytest.raises(TypeError):  # another cleaning is another folder
        encode_texts(sources, (), ["nfc"], encoder, tmp_path / "cache")


def test_a_full_disk_is_reported_and_encoding_goes_on_later(
    tmp_path: Path, write: Write, encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = Sources({"train": [write("a.jsonl", rows(80))]})
    whole = contents(encode_texts(sources, (), None, encoder, tmp_path / "whole", shard_tokens=500))
    with pytest.MonkeyPatch.context() as patch:
        calls: Iterator[int] = iter(range(100))
        original = shard_writer._HashedFile.write

        def full(self: Any, values: Any) -> None:
            if next(calls) == 30:
                raise OSError(28, "No space left on device")
            original(self, values)

        patch.setattr(shard_writer._HashedFile, "write", full)
        with pytest.raises(UserError, match=r"cache_dir .*: No space left on device. Free some space"):
            encode_texts(sources, (), None, encoder, tmp_path / "cache", shard_tokens=500)
    (folder,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    assert (folder / "train-00000.json").exists()
    assert contents(encode_texts(sources, (), None, encoder, tmp_path / "cache", shard_tokens=500)) == whole


KILLED = """
import os, signal, sys
from pathlib import Path
from data_modules.encoding import shard_folder, shard_writer, text_cache, text_chunks
from data_modules.encoding.text_cache import encode_texts
from data_modules.encoding.text_encoder import TextEncoder
from data_modules.records.splits import Sources
from tests.conftest import byte_tokenizer

POINTS = [
    (shard_writer.ShardWriter, "add", 6),  # in the middle of the first shard
    (shard_writer, "write_whole", 1),  # it is on disk, but not its .json
    (shard_writer.ShardWriter, "add", 50),  # at the beginning of the last split
    (shard_writer.ShardWriter, "add", 12),  # after some of its shards
    (shard_writer.ShardWriter, "write_index", 3),  # all are finished
    (text_cache, "finish", 1),
    (shard_folder, "remove_leftovers", 1),  # the manifest is written
]

def kill_at(owner, name, call):
    original, calls = getattr(owner, name), []
    def wrapped(*arguments):
        calls.append(1)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments)
    setattr(owner, name, wrapped)

text_chunks._CHUNK_DOCUMENTS = 7
encoder = TextEncoder(byte_tokenizer())
sources = Sources({"train": [sys.argv[1]]}, {"val": 0.1, "test": 0.1}, on_invalid="drop")
rules = ["nfc", "empty_brackets", {"min_length": {"characters": 12}}, "exact_duplicates", "near_duplicates"]
for point in [*POINTS, None]:
    child = os.fork()
    if child == 0:
        if point:
            kill_at(*point)
        encode_texts(sources, (), rules, encoder, Path(sys.argv[2]), shard_tokens=500)
        os._exit(7)
    print(os.waitpid(child, 0)[1], *sorted(path.name for path in Path(sys.argv[2]).glob("*/*.json")), flush=True)
"""


def test_killed_at_any_point_it_goes_on_to_the_same_bytes(tmp_path: Path, write: Write, encoder: TextEncoder) -> None:
    lines = [json.dumps(row) for row in rows(150)]
    file = write("a.jsonl", "\n".join([*lines[:70], "no json", *lines[70:], *lines[9:20]]) + "\n")
    sources = Sources({"train": [file]}, {"val": 0.1, "test": 0.1}, on_invalid="drop")
    whole = encode_texts(sources, (), CLEANING, encoder, tmp_path / "whole", shard_tokens=500)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, file, str(tmp_path / "cache")],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        env=os.environ | {"TOKENIZERS_PARALLELISM": "false"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    statuses, files = zip(*(line.partition(" ")[::2] for line in done.stdout.splitlines()), strict=True)
    assert [int(status) for status in statuses] == [signal.SIGKILL] * 7 + [7 << 8]
    newest = ["", "", "val.json", "train-00000.json", "train.json", "train.json", "manifest.json", "manifest.json"]
    assert [name in found.split() for name, found in zip(newest, files, strict=True)] == [False, False, *[True] * 6]
    assert not any("train.json" in found for found in files[:4])
    assert contents(next((tmp_path / "cache").glob("text-*/"))) == contents(whole)
    assert len([name for name in contents(whole) if name.endswith(".tokens")]) > 5
    rules = read_manifest(whole)["splits"]["train"]["ledger"]["cleaning"]["rules"]
    assert min(rules["exact_duplicates"]["dropped"], rules["near_duplicates"]["dropped"]) > 1
