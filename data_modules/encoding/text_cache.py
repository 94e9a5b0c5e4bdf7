"""Encoded documents of text runs, cached on disk as shards. An encoding that is killed continues where it stopped."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_modules.cleaning.cleaner import Cleaner
from data_modules.encoding.cache import check_outside, identity_digest, records_digest
from data_modules.encoding.pool import ChunkPool
from data_modules.encoding.shard_folder import clear, finish, is_complete, leftovers, locked, remove_leftovers
from data_modules.encoding.shard_writer import SHARD_TOKENS, ShardWriter
from data_modules.encoding.text_chunks import TextChunkEncoder, TextTask
from data_modules.encoding.text_encoder import TextEncoder
from data_modules.encoding.text_feeds import Feed, Keys, SplitRun, encode_feeds
from data_modules.encoding.text_judges import Judges
from data_modules.encoding.text_ledger import merged
from data_modules.encoding.token_shards import MANIFEST
from data_modules.errors import UserError
from data_modules.records.mix import MixSource
from data_modules.records.splits import Sources

_VERSION = 2
"""Bump when the same documents would be encoded differently, so that no stale shards are read.
A run cannot be resumed with another version."""


def encode_texts(
    sources: Sources,
    mix: tuple[MixSource, ...],
    cleaning: list[Any] | None,
    encoder: TextEncoder,
    cache_dir: Path,
    *,
    processes: int = 1,
    shard_tokens: int = SHARD_TOKENS,
) -> Path:
    """Encode the documents of every split, or find them in the cache.

    If it is killed, the next call continues after the last finished shard, and the files are the same.

    Args:
        sources: Where the documents are.
        mix: The sources of a mixture, sorted by name; none without.
        cleaning: Cleaning rules of sources without their own.
        encoder: Encodes them.
        cache_dir: The cache folder.
        processes: Maximum number of encoding processes. The result does not depend on it.
        shard_tokens: Minimum number of tokens in a shard other than the last.

    Returns:
        A folder for `open_shards`, with a ledger for each split in its manifest.

    Raises:
        UserError: If a record is invalid and `on_invalid` is `error`, a file cannot be read, or the disk is full.
        ChildProcessError: If a process died.
    """
    check_outside(cache_dir, sources)
    splits = {split: feeds_of(split, sources, mix, cleaning) for split in sources.splits}
    identity = text_identity(sources, mix, cleaning, encoder)
    folder = cache_dir / f"text-{identity_digest({**identity, 'paths': _paths(splits)})}"
    if is_complete(folder) and not leftovers(folder):
        return folder
    with locked(folder):
        if is_complete(folder):  # another process has finished it meanwhile
            remove_leftovers(folder)
            return folder
        if (folder / MANIFEST).exists():
            clear(folder)
        try:
            _encode(folder, splits, encoder, processes, shard_tokens, identity)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise UserError(
                f"--data.cache_dir {cache_dir}: {error.strerror}. Free some space and start again to continue after "
                "the last finished shard, or choose another folder."
            ) from None
    return folder


def text_identity(
    sources: Sources, mix: tuple[MixSource, ...], cleaning: list[Any] | None, encoder: TextEncoder
) -> dict[str, Any]:
    """The contents of the files and how they are encoded, by setting.

    Args:
        sources: Where the documents are.
        mix: The sources of a mixture; none without.
        cleaning: Cleaning rules.
        encoder: Encodes them.
    """
    tokenizer = encoder.tokenizer
    files = {split: names for split, names in sources.files.items() if not (mix and split == "train")}
    return {
        "version of the encoding": f"text {_VERSION}",
        **{f"records of --data.{split}": records_digest(names) for split, names in files.items()},
        **{f"--data.{split}_fraction": share for split, share in sources.fractions.items()},
        "--data.train_fraction": sources.train_fraction,
        "--data.on_invalid": sources.on_invalid,
        **({"--data.columns": sources.columns} if sources.columns else {}),
        **({"--data.keep_together": sources.keep_together} if sources.keep_together != "exact" else {}),
        **({"--data.txt_documents": sources.txt_documents} if sources.txt_documents != "line" else {}),
        **({"--data.cleaning": Cleaner.from_settings(cleaning).identity()} if cleaning else {}),
        **{f"records of --data.mix {source.name}": records_digest(source.files) for source in mix},
        **{f"encoding of --data.mix {source.name}": found for source in mix if (found := _of_source(source))},
        "tokenizer": identity_digest(
            {"": [tokenizer.backend_tokenizer.to_str(), tokenizer.bos_token, tokenizer.eos_token]}
        ),
    }


def feeds_of(split: str, sources: Sources, mix: tuple[MixSource, ...], cleaning: list[Any] | None) -> list[Feed]:
    """Where the documents of a split come from, source by source.

    Raises:
        UserError: If a cleaning rule is unknown, or a source has a setting that text runs do not have.
    """
    cleaner = Cleaner.from_settings(cleaning or [])
    if not mix or (split in sources.files and split != "train"):
        return [Feed("", sources, _task(split, sources, cleaner, -1))]
    feeds = []
    for index, source in enumerate(mix):
        for name in ("template", "mask", "format"):
            if getattr(source, name) not in (None, "text"):
                raise UserError(f"--data.mix {source.name}: {name} is not a setting of text runs; remove it.")
        place = f"--data.mix {source.name}: cleaning"
        own = cleaner if source.cleaning is None else Cleaner.from_settings(source.cleaning, place)
        of_source = source.sources(sources)
        feeds.append(Feed(source.name, of_source, _task(split, of_source, own, index)))
    return feeds


def _task(split: str, sources: Sources, cleaner: Cleaner, index: int) -> TextTask:
    is_shared = bool(sources.shares) or sources.train_fraction < 1
    divided = is_shared and (split == "train" or split not in sources.files)
    shares = sources.shares if divided else None
    fraction, together = sources.train_fraction, sources.keep_together
    return TextTask(split, cleaner, index, shares, fraction, together, sources.on_invalid)


def _of_source(source: MixSource) -> dict[str, Any]:
    """Settings of a source that change how it is encoded."""
    cleaning = None if source.cleaning is None else Cleaner.from_settings(source.cleaning).identity()
    settings = {"cap": source.cap, "columns": source.columns, "cleaning": cleaning}
    return {name: value for name, value in settings.items() if value is not None}


def _paths(splits: Mapping[str, list[Feed]]) -> dict[str, Any]:
    """The paths of the files, which messages in the ledgers name, and the names of the sources."""
    return {split: [[feed.name, feed.sources.files] for feed in feeds] for split, feeds in splits.items()}


def _encode(
    folder: Path,
    splits: Mapping[str, list[Feed]],
    encoder: TextEncoder,
    processes: int,
    shard_tokens: int,
    identity: dict[str, Any],
) -> None:
    files: dict[str, Any] = {}
    dtype, entries = token_dtype(encoder), {}
    judges = Judges(feed.task.cleaner for feeds in splits.values() for feed in feeds)
    taken: Keys = np.zeros(0, dtype=np.uint64)
    with ChunkPool(TextChunkEncoder(encoder), processes, lambda chunk: chunk.num_characters) as pool:
        for split, feeds in splits.items():
            writer = ShardWriter(folder, split, dtype, shard_tokens)
            ledgers = encode_feeds(SplitRun(split, feeds, writer, pool, taken, judges))
            if split != "train":
                taken = np.union1d(taken, writer.held_out_keys())
            entry = writer.write_index()
            files |= entry.pop("files")
            parts = {feed.name: ledger for feed, ledger in zip(feeds, ledgers, strict=True) if feed.name}
            entries[split] = {**entry, "ledger": {**merged(ledgers), **({"sources": parts} if parts else {})}}
    settings = {"digest": identity_digest(identity), "identity": identity}
    finish(folder, {"version": 1, "dtype": dtype.name, "settings": settings, "splits": entries, "files": files})


def token_dtype(encoder: TextEncoder) -> np.dtype[Any]:
    """The smallest type for every id of a tokenizer: uint16 or uint32."""
    highest = max(encoder.tokenizer.get_vocab().values())
    return np.dtype(np.uint16 if highest < 2**16 else np.uint32)
