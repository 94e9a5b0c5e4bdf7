"""Caches encoded splits on disk, under a key of everything that affects them."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_modules.digests import digest_of
from data_modules.encoding.cache_entries import is_whole, new_folder
from data_modules.encoding.encoder import Encoder
from data_modules.encoding.example_store import ExampleStore, write_batches
from data_modules.encoding.ledger import Ledger
from data_modules.encoding.pool import ChunkEncoder, EncodingPool
from data_modules.errors import UserError
from data_modules.progress import Progress
from data_modules.records.columns import check_found
from data_modules.records.conversation import Conversation
from data_modules.records.kept_records import KeptRecords
from data_modules.records.readers import source_fingerprint
from data_modules.records.splits import Sources, all_invalid, notices_in, skipped_in, without_duplicates
from data_modules.records.turn_order import TurnRules

_VERSION = 5
"""Bump when the same records would be encoded differently, so that no stale cache is read.
A run cannot be resumed with another version."""

_IN_ORDER = asdict(TurnRules())


def cache_folder(given: str | None) -> Path:
    """The folder for encoded data: the user's choice, else $LIT_SFT_CACHE, else ~/.cache/lit_sft.

    Raises:
        UserError: If there is no home folder to put it in.
    """
    try:
        return Path(given or os.environ.get("LIT_SFT_CACHE", "~/.cache/lit_sft")).expanduser()
    except RuntimeError:
        raise UserError("no home folder for encoded data; set `--data.cache_dir FOLDER` or LIT_SFT_CACHE.") from None


def encode_sources(sources: Sources, encoder: Encoder, cache_dir: Path, *, processes: int = 1) -> Path:
    """Encode every split, or find it in the cache.

    Args:
        sources: The data to encode.
        encoder: Encodes it.
        cache_dir: The cache folder.
        processes: Maximum number of encoding processes. The result does not depend on it.

    Returns:
        A folder with one `<split>.arrow` per split and `ledgers.json`.

    Raises:
        UserError: If a record is invalid and `on_invalid` is `error`, or a file cannot be read.
        ChildProcessError: If a process died.
    """
    check_outside(cache_dir, sources)
    folder = cache_dir / cache_key(sources, encoder)
    names = [*(f"{split}.arrow" for split in sources.splits), "ledgers.json"]
    if is_whole(folder, names):
        return folder
    with new_folder(folder, names) as partial:
        ledgers = _encode_splits(sources, encoder, partial, processes)
        (partial / "ledgers.json").write_text(json.dumps(ledgers, indent=1, ensure_ascii=False), encoding="utf-8")
    return folder


def check_outside(cache_dir: Path, sources: Sources) -> None:
    """Refuse a cache inside a data folder: its .json files would be read as records."""
    for split, files in sources.files.items():
        for file in files:
            if Path(file).is_dir() and cache_dir.resolve().is_relative_to(Path(file).resolve()):
                raise UserError(
                    f"--data.cache_dir {cache_dir}: inside the folder {file} of --data.{split}, so its files would be "
                    "read as records; choose another folder."
                )


def load_split(folder: Path, split: str) -> ExampleStore | None:
    """Open the examples of a split, or of all sources of a mixture; None if there is no such split."""
    path = folder / f"{split}.arrow"
    if path.exists():
        return ExampleStore(path)
    sources = sorted(folder.glob(f"{split}.*.arrow"), key=lambda each: int(each.suffixes[-2][1:]))
    return ExampleStore(sources) if sources else None


def load_ledgers(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the ledger of each split, training first."""
    ledgers: dict[str, dict[str, Any]] = json.loads((folder / "ledgers.json").read_text(encoding="utf-8"))
    return {split: ledgers[split] for split in ("train", "val", "test", "predict") if split in ledgers}


def open_splits(folder: Path, sources: Sources) -> tuple[dict[str, ExampleStore], dict[str, dict[str, Any]]]:
    """The examples of every split, and its ledger with what was skipped and noticed in its files.

    Args:
        folder: From `encode_sources`, or of a mixture.
        sources: The same as there.
    """
    stores = {split: load_split(folder, split) for split in sources.splits}
    # not cached: they do not invalidate the cache
    skipped, notices = skipped_in(sources), notices_in(sources, asks_for_unit=False)
    ledgers = {
        split: {**ledger, "skipped_files": skipped.get(split, []), "notices": notices.get(split, [])}
        for split, ledger in load_ledgers(folder).items()
    }
    return {split: store for split, store in stores.items() if store is not None}, ledgers


def cache_key(sources: Sources, encoder: Encoder) -> str:
    """A digest of everything that affects the encoded data, including the paths in its origins."""
    return digest_of([sources.files, data_fingerprint(sources, encoder)])


def data_fingerprint(sources: Sources, encoder: Encoder) -> str:
    """A digest of the contents of the files and how they are encoded, independent of their paths."""
    return identity_digest(data_identity(sources, encoder))


def identity_digest(identity: Mapping[str, Any]) -> str:
    """A digest of a `data_identity`."""
    return digest_of(identity)


def data_identity(sources: Sources, encoder: Encoder) -> dict[str, Any]:
    """The contents of the files and how they are encoded, by setting."""
    return {
        "version of the encoding": _VERSION,
        **{f"records of --data.{split}": records_digest(files) for split, files in sources.files.items()},
        **{f"--data.{split}_fraction": share for split, share in sources.fractions.items()},
        "--data.train_fraction": sources.train_fraction,
        "--data.format": sources.format,
        "--data.on_invalid": sources.on_invalid,
        "--data.samples": sources.samples,
        "answers wanted": sources.require_answer,
        # only if not the default, so that older runs and caches keep their keys
        **({"plain text is": sources.text} if sources.text != "document" else {}),
        **({"--data.columns": sources.columns} if sources.columns else {}),
        **({"cap": sources.cap} if sources.cap else {}),
        **({"--data.keep_together": sources.keep_together} if sources.keep_together != "exact" else {}),
        **{f"--data.{name}": rule for name, rule in asdict(sources.turn_rules).items() if rule != _IN_ORDER[name]},
        "tokenizer": encoder.tokenizer_digest,
        **({"--data.convention": encoder.convention.name} if encoder.convention else {}),
        "--data.template": encoder.template.name,
        "layout of the template": digest_of(encoder.template.layout),
        "--data.max_length": encoder.max_length,
        "--data.over_long": encoder.over_long,
    }


def records_digest(files: Sequence[str]) -> str:
    """A digest of the contents of files, independent of their paths."""
    return digest_of([source_fingerprint(file) for file in files])


def _encode_splits(sources: Sources, encoder: Encoder, folder: Path, processes: int) -> dict[str, Any]:
    """Write the examples of every split to a folder; returns their ledgers."""
    taken: set[str] = set()
    kept = KeptRecords()
    ledgers = {
        split: encode_split(split, sources, encoder, folder / f"{split}.arrow", taken, kept, processes=processes)
        for split in sources.splits
    }
    check_columns_found(sources, list(ledgers.values()))
    return {split: ledger.to_dict() for split, ledger in ledgers.items()}


def encode_split(
    split: str, sources: Sources, encoder: Encoder, path: Path, taken: set[str], kept: KeptRecords, *, processes: int
) -> Ledger:
    """Write the examples of one split to a file.

    Args:
        split: Its name.
        sources: Where its records come from.
        encoder: Encodes it.
        path: The file.
        taken: The keys of earlier splits, which this one must not have; its own are added if it is held out.
        kept: Keeps the records for the other splits.
        processes: Maximum number of encoding processes.

    Raises:
        UserError: If a record is invalid and `on_invalid` is `error`, or a file cannot be read.
        ChildProcessError: If a process died.
    """
    # held-out conversations stay whole, so that metrics cover the same tokens whatever `samples` is
    samples = sources.samples if split == "train" else "conversation"
    with EncodingPool(ChunkEncoder(encoder, sources.on_invalid, samples), processes) as pool:
        read, encoded = Ledger(sources.on_invalid), Ledger(sources.on_invalid)
        conversations = without_duplicates(split, sources, read, taken, kept)
        write_batches(path, _encoded_chunks(split, conversations, pool, encoded))
    # added at the end: reading runs ahead of encoding, and each lists its rejected records in order
    read.add(encoded)
    if split in sources.files and encoded.num_invalid and not (read.examples or read.duplicates or read.dropped):
        raise UserError(all_invalid(sources.files[split], read))
    assert read.is_balanced(), f"{split}: records are unaccounted for: {read}"
    return read


def check_columns_found(sources: Sources, ledgers: Collection[Ledger]) -> None:
    """Refuse columns that no record has; prompts may lack the column with the answers.

    Args:
        sources: The columns, and the files of the records.
        ledgers: What was found in them.

    Raises:
        UserError: If a column is missing.
    """
    found = {name for ledger in ledgers for name in ledger.columns_found}
    names = {name for ledger in ledgers for counts in ledger.unknown_fields.values() for name in counts}
    if sources.require_answer:
        check_found(sources.columns, found, names)


def _encoded_chunks(
    split: str, conversations: Iterator[Conversation], pool: EncodingPool, ledger: Ledger
) -> Iterator[pa.RecordBatch]:
    with Progress(f"encoding {split}", "conversations") as progress:
        for chunk in pool.run(conversations):
            ledger.add(chunk.ledger)
            progress.update(chunk.num_conversations)
            yield chunk.examples
