"""Tokens of documents on disk, memory-mapped: any number of them takes no RAM.

A folder of `encode_texts` holds, for each split:

    train-00000.tokens    tokens of the documents one after the other, uint16 or uint32; a shard ends with a document
    train-00000.ends      one bit per token of the shard, lowest bit first: whether it completes a sentence
    train.starts          int64, (documents + 1): where each document's tokens begin, counted over all shards
    train.bytes           int64, (documents): bytes of each text in UTF-8
    train.hashes          uint64, (documents): `hash_of` the key of each document
    train.sources         int16, (documents): its source in a mixture; -1 outside mixtures

and `manifest.json`, which lists every file with its size and SHA-256.
"""

from __future__ import annotations

import json
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

MANIFEST = "manifest.json"

DOCUMENT_FIELDS: dict[str, npt.DTypeLike] = {
    "starts": np.int64,
    "bytes": np.int64,
    "hashes": np.uint64,
    "sources": np.int16,
}
"""What is known of each document: one file per field."""


class TokenShards:
    """The documents of one split, read-only. Pickled as its folder, for data loader workers.

    Args:
        folder: A folder with a manifest.
        split: One of the splits in it.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self.folder, self.split = folder, split
        manifest = read_manifest(folder)
        entry = manifest["splits"][split]
        self.num_documents, self.num_tokens = int(entry["documents"]), int(entry["tokens"])
        self._dtype = np.dtype(manifest["dtype"])
        self._shard_starts = np.cumsum([0, *(shard["tokens"] for shard in entry["shards"])], dtype=np.int64)

    def __reduce__(self) -> tuple[Any, ...]:
        return TokenShards, (self.folder, self.split)

    def __len__(self) -> int:
        return self.num_documents

    @cached_property
    def starts(self) -> npt.NDArray[np.int64]:
        """Where each document's tokens begin, (num_documents + 1,); the last is `num_tokens`."""
        return self._of_documents("starts")

    @cached_property
    def num_bytes(self) -> npt.NDArray[np.int64]:
        """Bytes of each document's text in UTF-8, (num_documents,)."""
        return self._of_documents("bytes")

    @cached_property
    def hashes(self) -> npt.NDArray[np.uint64]:
        """A hash of each document's key, by which documents are chosen whatever their order, (num_documents,)."""
        return self._of_documents("hashes")

    @cached_property
    def sources(self) -> npt.NDArray[np.int16]:
        """Index of each document's source in the mixture, (num_documents,); -1 outside mixtures."""
        return self._of_documents("sources")

    def tokens(self, start: int, stop: int) -> npt.NDArray[np.int32]:
        """Tokens, whatever documents and shards they are in.

        Args:
            start: The first, counted over all shards.
            stop: After the last.

        Returns:
            (stop - start,) int32.
        """
        parts = [self._map(shard, "tokens", self._dtype)[a:b] for shard, a, b in self._pieces(start, stop)]
        return np.concatenate([part.astype(np.int32) for part in parts] or [np.zeros(0, dtype=np.int32)])

    def sentence_ends(self, start: int, stop: int) -> npt.NDArray[np.bool_]:
        """Whether each token completes a sentence; see `sentence_ends.py`.

        Args:
            start: The first token, counted over all shards.
            stop: After the last.

        Returns:
            (stop - start,) bool.
        """
        parts = []
        for shard, a, b in self._pieces(start, stop):
            bits = self._map(shard, "ends", np.uint8)[a // 8 : -(-b // 8)]
            parts.append(np.unpackbits(bits, bitorder="little")[a % 8 : a % 8 + b - a].astype(np.bool_))
        return np.concatenate(parts or [np.zeros(0, dtype=np.bool_)])

    def _pieces(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """The shards that hold tokens, each with its own first token and the one after the last."""
        if not 0 <= start <= stop <= self.num_tokens:
            raise IndexError(f"{self.folder}: tokens {start} to {stop} of the {self.num_tokens} of {self.split}")
        if start == stop:
            return []
        edges = self._shard_starts
        first, last = np.searchsorted(edges, start, "right") - 1, np.searchsorted(edges, stop, "left")
        return [
            (int(shard), int(max(start - edges[shard], 0)), int(min(stop, edges[shard + 1]) - edges[shard]))
            for shard in range(first, last)
        ]

    def _map(self, shard: int, kind: str, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        return _mapped(self.folder / shard_file(self.split, shard, kind), np.dtype(dtype))

    def _of_documents(self, name: str) -> npt.NDArray[Any]:
        return _mapped(self.folder / f"{self.split}.{name}", np.dtype(DOCUMENT_FIELDS[name]))


def shard_file(split: str, shard: int, kind: str) -> str:
    """The name of a shard's file."""
    return f"{split}-{shard:05d}.{kind}"


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder."""
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return manifest


def open_shards(folder: Path) -> dict[str, TokenShards]:
    """Every split of a folder that has documents."""
    found = {split: TokenShards(folder, split) for split in read_manifest(folder)["splits"]}
    return {split: shards for split, shards in found.items() if len(shards)}


@lru_cache(maxsize=4096)
def _mapped(path: Path, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """A file as an array. Kept open, because mapping it takes longer than reading a block from it."""
    if not path.stat().st_size:  # an empty file cannot be mapped
        return np.zeros(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r")
