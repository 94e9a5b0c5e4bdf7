"""Splits of encoded examples, made once and cached on disk under a key of everything that shapes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_modules.encoding.cache_entries import is_whole, new_folder
from data_modules.encoding.encoder import Encoder
from data_modules.encoding.example_store import ExampleStore, write_batches
from data_modules.encoding.ledger import Ledger
from data_modules.encoding.pool import ChunkEncoder, EncodingPool
from data_modules.errors import UserError
from data_modules.progress import Progress
from data_modules.records.conversation import Conversation
from data_modules.records.readers import source_fingerprint
from data_modules.records.splits import Sources, all_invalid, without_duplicates

_VERSION = 4
"""Bump when the same records would be encoded differently, so that no stale cache is read."""


def encode_sources(sources: Sources, encoder: Encoder, cache_dir: Path, *, processes: int = 1) -> Path:
    """Encode every split, or find it encoded already and undamaged.

    Args:
        sources: What is read.
        encoder: What encodes it.
        cache_dir: Where encoded data is kept.
        processes: How many processes encode, at most. What they make does not depend on it.

    Returns:
        A folder with one `<split>.arrow` a split and `ledgers.json`.

    Raises:
        UserError: If a record is invalid and the policy is `error`, or a file cannot be read.
        ChildProcessError: If a process died.
    """
    _check_outside(cache_dir, sources)
    folder = cache_dir / cache_key(sources, encoder)
    names = [*(f"{split}.arrow" for split in sources.splits), "ledgers.json"]
    if is_whole(folder, names):
        return folder
    with new_folder(folder, names) as partial:
        ledgers = _encode_splits(sources, encoder, partial, processes)
        (partial / "ledgers.json").write_text(json.dumps(ledgers, indent=1, ensure_ascii=False), encoding="utf-8")
    return folder


def _check_outside(cache_dir: Path, sources: Sources) -> None:
    """The cache holds .json files, which would be taken for records."""
    for split, files in sources.files.items():
        for file in files:
            if Path(file).is_dir() and cache_dir.resolve().is_relative_to(Path(file).resolve()):
                raise UserError(
                    f"--data.cache_dir {cache_dir}: is inside the folder {file} of --data.{split}, so its files would "
                    "be read as records; choose another folder."
                )


def load_split(folder: Path, split: str) -> ExampleStore | None:
    """The examples of a split; None if there is no such split."""
    path = folder / f"{split}.arrow"
    return ExampleStore(path) if path.exists() else None


def load_ledgers(folder: Path) -> dict[str, dict[str, Any]]:
    """What happened to the data of each split, training first."""
    ledgers: dict[str, dict[str, Any]] = json.loads((folder / "ledgers.json").read_text(encoding="utf-8"))
    return {split: ledgers[split] for split in ("train", "val", "test", "predict") if split in ledgers}


def cache_key(sources: Sources, encoder: Encoder) -> str:
    """A digest of everything that shapes the encoded data, including the paths in its origins."""
    return _digest([sources.files, data_fingerprint(sources, encoder)])


def data_fingerprint(sources: Sources, encoder: Encoder) -> str:
    """A digest of the contents of the files and how they are encoded, wherever the files are."""
    return _digest(data_identity(sources, encoder))


def data_identity(sources: Sources, encoder: Encoder) -> dict[str, Any]:
    """The contents of the files and how they are encoded, by the names of the settings."""
    tokenizer = encoder.tokenizer
    return {
        "version of the encoding": _VERSION,
        **{f"records of --data.{split}": records_digest(files) for split, files in sources.files.items()},
        **{f"--data.{split}_fraction": share for split, share in sources.fractions.items()},
        "--data.train_fraction": sources.train_fraction,
        "--data.format": sources.format,
        "--data.on_invalid": sources.on_invalid,
        "--data.samples": sources.samples,
        "answers wanted": sources.require_answer,
        # only where it is not the usual one, so that what older runs and caches are named by stays the same
        **({"plain text is": sources.text} if sources.text != "document" else {}),
        "tokenizer": _digest([tokenizer.backend_tokenizer.to_str(), tokenizer.bos_token, tokenizer.eos_token]),
        "--data.template": encoder.template.name,
        "layout of the template": _digest(
            repr(encoder.template) if encoder.template.name != "tokenizer" else tokenizer.chat_template
        ),
        "--data.max_length": encoder.max_length,
        "--data.over_long": encoder.over_long,
    }


def records_digest(files: Sequence[str]) -> str:
    """A digest of the contents of files, wherever they are."""
    return _digest([source_fingerprint(file) for file in files])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _encode_splits(sources: Sources, encoder: Encoder, folder: Path, processes: int) -> dict[str, Any]:
    """Write the examples of every split into a folder; returns their ledgers."""
    ledgers: dict[str, Any] = {}
    taken: set[str] = set()
    for split in sources.splits:
        # held-out records are scored whole, so that metrics are over the same tokens whatever `samples` is
        samples = sources.samples if split == "train" else "conversation"
        with EncodingPool(ChunkEncoder(encoder, sources.on_invalid, samples), processes) as pool:
            read, encoded = Ledger(sources.on_invalid), Ledger(sources.on_invalid)
            conversations = without_duplicates(split, sources, read, taken)
            write_batches(folder / f"{split}.arrow", _encode_split(split, conversations, pool, encoded))
            # only now: reading runs ahead of encoding, and each lists what it rejected in order
            read.add(encoded)
            if (
                split in sources.files
                and encoded.num_invalid
                and not (read.examples or read.duplicates or read.dropped)
            ):
                raise UserError(all_invalid(sources.files[split], read))
            assert read.is_balanced(), f"{split}: records are unaccounted for: {read}"
            ledgers[split] = read.to_dict()
    return ledgers


def _encode_split(
    split: str, conversations: Iterator[Conversation], pool: EncodingPool, ledger: Ledger
) -> Iterator[pa.RecordBatch]:
    with Progress(f"encoding {split}", "conversations") as progress:
        for chunk in pool.run(conversations):
            ledger.add(chunk.ledger)
            progress.update(chunk.num_conversations)
            yield chunk.examples
