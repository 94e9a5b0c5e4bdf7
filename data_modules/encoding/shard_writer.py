"""Writes the documents of a split as shards of bounded size; see `token_shards.py` for the files.

A shard is finished once its `.json` file exists, which names its files with their digests and says how far the
documents had been read. A writer that is killed continues after the last finished shard.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from data_modules.digests import file_digest
from data_modules.encoding.text_chunks import EncodedDocuments
from data_modules.encoding.token_shards import DOCUMENT_FIELDS, shard_file

SHARD_TOKENS = 2**26
"""A shard ends with the chunk of documents that brings it to this many tokens: 128 MiB in 16 bits."""

_DOCUMENT = np.dtype([("length", "<i8"), ("bytes", "<i8"), ("hash", "<u8"), ("source", "<i2")])
_PARTS = ("tokens", "ends", "documents", "keys", "judged")
_AT_ONCE = 1_000_000


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished shard.

    Attributes:
        documents: Documents in it.
        tokens: Their tokens.
        state: How far the caller had come, as it passed it to `end_shard`.
        files: Size and SHA-256 of its files, by name.
    """

    documents: int
    tokens: int
    state: dict[str, Any]
    files: dict[str, dict[str, Any]]


class ShardWriter:
    """Writes the documents of one split, after the shards that are already finished.

    Args:
        folder: Where to write. Files of unfinished or damaged shards of this split are removed.
        split: Its name.
        dtype: Type of the tokens on disk.
        shard_tokens: A shard ends with the chunk that brings it to this many tokens.
    """

    def __init__(self, folder: Path, split: str, dtype: np.dtype[Any], shard_tokens: int = SHARD_TOKENS) -> None:
        self.folder, self.split, self.dtype, self.shard_tokens = folder, split, dtype, shard_tokens
        self.shards = list(_finished(folder, split))
        for path in folder.glob(f"{split}-*"):
            if int(path.name[len(split) + 1 :].split(".")[0]) >= len(self.shards):
                path.unlink()
        self._files: dict[str, _HashedFile] = {}
        self._bits = np.zeros(0, dtype=np.bool_)
        self._num_documents = self._num_tokens = 0
        self._has_judged = False

    @property
    def final_state(self) -> dict[str, Any] | None:
        """The state that was passed to `finish`; None if the split is not finished."""
        try:
            found = json.loads((self.folder / f"{self.split}.json").read_bytes())
        except (OSError, ValueError):
            return None
        return dict(found["state"]) if found["shards"] == len(self.shards) else None

    @property
    def state(self) -> dict[str, Any] | None:
        """The state that was passed to `end_shard` for the last finished shard; None without one."""
        return self.shards[-1].state if self.shards else None

    @property
    def is_full(self) -> bool:
        """Whether the shard is long enough to end."""
        return self._num_tokens >= self.shard_tokens

    @property
    def num_tokens(self) -> int:
        """Tokens in finished shards."""
        return sum(shard.tokens for shard in self.shards)

    def add(self, chunk: EncodedDocuments, keep: npt.NDArray[np.bool_], judged: bytes = b"") -> None:
        """Write documents.

        Args:
            chunk: Documents.
            keep: Which of them to write, (N,) bool.
            judged: What `judged` returns if the writer is killed after this shard.
        """
        self._files = self._files or {part: _HashedFile(self._path(part)) for part in _PARTS}
        of_token = np.repeat(keep, chunk.lengths)
        self._files["tokens"].write(chunk.ids[of_token].astype(self.dtype))
        self._bits = np.concatenate([self._bits, chunk.sentence_ends[of_token]])
        whole = len(self._bits) // 8 * 8
        self._files["ends"].write(np.packbits(self._bits[:whole], bitorder="little"))
        self._bits = self._bits[whole:]
        documents = np.zeros(int(keep.sum()), dtype=_DOCUMENT)
        values = {"length": chunk.lengths, "bytes": chunk.num_bytes, "hash": chunk.hashes}
        for name, each in values.items():
            documents[name] = each[keep]
        documents["source"] = chunk.source
        self._files["documents"].write(documents)
        self._files["keys"].write(chunk.keys[keep])
        self._files["judged"].write(np.frombuffer(judged, dtype=np.uint8))
        self._has_judged |= bool(judged)
        self._num_documents += len(documents)
        self._num_tokens += int(chunk.lengths[keep].sum())

    def end_shard(self, state: dict[str, Any]) -> None:
        """Finish the shard, and remember how far the caller has come.

        Args:
            state: JSON values.
        """
        self._files["ends"].write(np.packbits(self._bits, bitorder="little"))
        files = {file.path.name: file.close() for file in self._files.values()}
        finished = Finished(self._num_documents, self._num_tokens, state, files)
        write_whole(self._path("json"), json.dumps(_as_dict(finished), indent=1, ensure_ascii=False))
        self.shards.append(finished)
        self._files, self._bits = {}, self._bits[:0]
        self._num_documents = self._num_tokens = 0
        self._has_judged = False

    def finish(self, state: dict[str, Any]) -> None:
        """Finish the last shard and the split.

        Args:
            state: JSON values.
        """
        if self._num_documents or self._has_judged:
            self.end_shard(state)
        else:
            self.close()
        text = json.dumps({"shards": len(self.shards), "state": state}, indent=1, ensure_ascii=False)
        write_whole(self.folder / f"{self.split}.json", text)

    def close(self) -> None:
        """Close the files of an unfinished shard, which the next writer removes."""
        for file in self._files.values():
            file.close()

    def judged(self) -> Iterator[bytes]:
        """What `add` was given about documents compared with others, shard by shard."""
        for index in range(len(self.shards)):
            yield (self.folder / shard_file(self.split, index, "judged")).read_bytes()

    def held_out_keys(self) -> npt.NDArray[np.uint64]:
        """The keys of all documents in finished shards, sorted, without 0."""
        paths = [self.folder / shard_file(self.split, index, "keys") for index in range(len(self.shards))]
        found = [np.fromfile(path, dtype=np.uint64) for path in paths]
        keys = np.unique(np.concatenate([np.zeros(0, dtype=np.uint64), *found]))
        return keys[keys > 0]

    def write_index(self) -> dict[str, Any]:
        """Write the files about all documents of the split; returns its entry of the manifest."""
        files = {name: _HashedFile(self.folder / f"{self.split}.{name}") for name in DOCUMENT_FIELDS}
        at = 0
        files["starts"].write(np.zeros(1, dtype=np.int64))
        for index, shard in enumerate(self.shards):
            path, size = self.folder / shard_file(self.split, index, "documents"), _DOCUMENT.itemsize
            for first in range(0, shard.documents, _AT_ONCE):
                rows = np.fromfile(path, dtype=_DOCUMENT, count=_AT_ONCE, offset=first * size)
                starts = at + np.cumsum(rows["length"], dtype=np.int64)
                at = int(starts[-1])
                values = {"starts": starts, "bytes": rows["bytes"], "hashes": rows["hash"], "sources": rows["source"]}
                for name, each in values.items():
                    files[name].write(np.ascontiguousarray(each, dtype=DOCUMENT_FIELDS[name]))
        kept = {name: entry for shard in self.shards for name, entry in shard.files.items() if _is_kept(name)}
        return {
            "documents": sum(shard.documents for shard in self.shards),
            "tokens": at,
            "shards": [{"documents": shard.documents, "tokens": shard.tokens} for shard in self.shards],
            "files": {**kept, **{file.path.name: file.close() for file in files.values()}},
        }

    def _path(self, part: str) -> Path:
        return self.folder / shard_file(self.split, len(self.shards), part)


class _HashedFile:
    """A file that is digested while it is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream: BinaryIO = path.open("wb")
        self._digest, self._size = hashlib.sha256(), 0

    def write(self, values: npt.NDArray[Any]) -> None:
        data = values.tobytes()
        self._stream.write(data)
        self._digest.update(data)
        self._size += len(data)

    def close(self) -> dict[str, Any]:
        """Flush the file to disk and close it; returns its size and digest."""
        if not self._stream.closed:
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()
        return {"bytes": self._size, "sha256": self._digest.hexdigest()}


def write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all, and flush it to disk."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)


def _is_kept(name: str) -> bool:
    """Whether a file of a shard stays when the folder is complete; by then the index holds what the others say."""
    return name.endswith((".tokens", ".ends"))


def _as_dict(shard: Finished) -> dict[str, Any]:
    return {"documents": shard.documents, "tokens": shard.tokens, "state": shard.state, "files": shard.files}


def _finished(folder: Path, split: str) -> Iterator[Finished]:
    """The finished shards of a split up to the first that is missing or damaged."""
    index = 0
    while True:
        try:
            values = json.loads((folder / shard_file(split, index, "json")).read_bytes())
            shard = Finished(**values)
            for name, entry in shard.files.items():
                if (folder / name).stat().st_size != entry["bytes"] or file_digest(folder / name) != entry["sha256"]:
                    return
        except (OSError, ValueError, TypeError):
            return
        yield shard
        index += 1
