"""Writes the tokens of documents as shards of bounded size, and the manifest; see `token_shards.py` for the files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from data_modules.digests import file_digests
from data_modules.encoding.text_encoder import EncodedText, TextEncoder
from data_modules.encoding.token_shards import DOCUMENT_FIELDS, MANIFEST, shard_file
from data_modules.records.content_keys import hash_of

VERSION = 1
"""Bump when the same documents would be written differently, so that no stale folder is read."""

SHARD_TOKENS = 2**26
"""A shard ends with the first document that brings it to this many tokens: 128 MiB in 16 bits."""


def write_shards(
    splits: Mapping[str, Iterable[tuple[str, str]]],
    encoder: TextEncoder,
    folder: Path,
    *,
    shard_tokens: int = SHARD_TOKENS,
) -> Path:
    """Encode documents in this process.

    Args:
        splits: The text and the key of each document, by split.
        encoder: Encodes them.
        folder: Where to; must not exist.
        shard_tokens: A shard ends with the first document that brings it to this many tokens.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True)
    dtype = token_dtype(encoder)
    entries = {}
    for split, documents in splits.items():
        writer = ShardWriter(folder, split, dtype, shard_tokens)
        for text, key in documents:
            (encoded,) = encoder.encode([text])
            writer.add(encoded, hash_of(key), -1)
        entries[split] = writer.finish()
    names = sorted(path.name for path in folder.iterdir())
    sizes = [(folder / name).stat().st_size for name in names]
    digests = file_digests([folder / name for name in names])
    files = {n: {"bytes": s, "sha256": d} for n, s, d in zip(names, sizes, digests, strict=True)}
    manifest = {"version": VERSION, "dtype": dtype.name, "splits": entries, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return folder


def token_dtype(encoder: TextEncoder) -> np.dtype[Any]:
    """The smallest type for every id of a tokenizer: uint16 or uint32."""
    highest = max(encoder.tokenizer.get_vocab().values())
    return np.dtype(np.uint16 if highest < 2**16 else np.uint32)


class ShardWriter:
    """Writes the documents of one split.

    Args:
        folder: Where to.
        split: Its name.
        dtype: Type of the tokens on disk.
        shard_tokens: A shard ends with the first document that brings it to this many tokens.
    """

    def __init__(self, folder: Path, split: str, dtype: np.dtype[Any], shard_tokens: int) -> None:
        self.folder, self.split, self.dtype, self.shard_tokens = folder, split, dtype, shard_tokens
        self._shards: list[dict[str, int]] = []
        self._documents: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in DOCUMENT_FIELDS}
        self._documents["starts"].append(np.zeros(1, dtype=np.int64))
        self._marks: list[npt.NDArray[np.bool_]] = []
        self._file: BinaryIO | None = None
        self._num_documents = self._num_tokens = self._before = 0

    def add(self, encoded: EncodedText, number: int, source: int) -> None:
        """Write a document.

        Args:
            encoded: Its tokens.
            number: The hash of its key.
            source: Index of its source; -1 outside mixtures.
        """
        if self._file is None:
            self._file = (self.folder / shard_file(self.split, len(self._shards), "tokens")).open("wb")
        self._file.write(encoded.ids.astype(self.dtype).tobytes())
        self._marks.append(encoded.sentence_ends)
        self._num_tokens += len(encoded.ids)
        self._num_documents += 1
        values = {
            "starts": self._before + self._num_tokens,
            "bytes": encoded.num_bytes,
            "hashes": number,
            "sources": source,
        }
        for name, value in values.items():
            self._documents[name].append(np.asarray([value], dtype=DOCUMENT_FIELDS[name]))
        if self._num_tokens >= self.shard_tokens:
            self._end_shard()

    def _end_shard(self) -> None:
        assert self._file is not None
        self._file.close()
        self._file = None
        bits = np.packbits(np.concatenate(self._marks), bitorder="little")
        (self.folder / shard_file(self.split, len(self._shards), "ends")).write_bytes(bits.tobytes())
        self._shards.append({"documents": self._num_documents, "tokens": self._num_tokens})
        self._before += self._num_tokens
        self._num_documents = self._num_tokens = 0
        self._marks = []

    def finish(self) -> dict[str, Any]:
        """Write the rest; returns the split's entry of the manifest."""
        if self._file is not None:
            self._end_shard()
        for name, parts in self._documents.items():
            values = np.concatenate(parts) if parts else np.zeros(0, dtype=DOCUMENT_FIELDS[name])
            (self.folder / f"{self.split}.{name}").write_bytes(values.tobytes())
        return {
            "documents": sum(shard["documents"] for shard in self._shards),
            "tokens": self._before,
            "shards": self._shards,
        }
