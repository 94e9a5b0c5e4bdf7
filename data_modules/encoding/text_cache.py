"""Encoded documents of text runs, made once and cached on disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_modules.encoding.cache import check_outside, identity_digest, records_digest
from data_modules.encoding.shard_writer import VERSION, write_shards
from data_modules.encoding.text_encoder import TextEncoder
from data_modules.encoding.token_shards import MANIFEST
from data_modules.errors import UserError
from data_modules.records.content_keys import content_key
from data_modules.records.counts import RecordCounts
from data_modules.records.mix import MixSource
from data_modules.records.splits import Sources, without_duplicates


def encode_texts(
    sources: Sources,
    mix: tuple[MixSource, ...],
    cleaning: list[Any] | None,
    encoder: TextEncoder,
    cache_dir: Path,
    *,
    processes: int,
) -> Path:
    """Encode the documents of every split, or find them in the cache.

    Args:
        sources: Where they are.
        mix: The sources of a mixture; none without.
        cleaning: Cleaning rules.
        encoder: Encodes them.
        cache_dir: The cache folder.
        processes: Maximum number of encoding processes. The result does not depend on it.

    Returns:
        A folder of `token_shards`.

    Raises:
        UserError: If a record is invalid and `on_invalid` is `error`, or a file cannot be read.
    """
    if mix or cleaning:
        raise UserError("--data.mix and --data.cleaning: not available for text runs yet; leave them out.")
    check_outside(cache_dir, sources)
    folder = cache_dir / f"text-{identity_digest(text_identity(sources, mix, cleaning, encoder))}"
    if (folder / "ledgers.json").exists():
        return folder
    counts = {split: RecordCounts(sources.on_invalid) for split in sources.splits}
    taken: set[str] = set()

    def documents(split: str) -> Iterator[tuple[str, str]]:
        for conversation in without_duplicates(split, sources, counts[split], taken):
            yield conversation.turns[0].content, content_key(conversation)

    write_shards({split: documents(split) for split in sources.splits}, encoder, folder)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    for split, each in counts.items():
        manifest["splits"][split]["ledger"] = {"records_read": each.records_read, "duplicates": each.duplicates}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    (folder / "ledgers.json").write_text("{}", encoding="utf-8")
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
    return {
        "version of the encoding": f"text {VERSION}",
        **{f"records of --data.{split}": records_digest(files) for split, files in sources.files.items()},
        **{f"--data.{split}_fraction": share for split, share in sources.fractions.items()},
        "--data.train_fraction": sources.train_fraction,
        "--data.on_invalid": sources.on_invalid,
        **({"--data.columns": sources.columns} if sources.columns else {}),
        **({"--data.cleaning": cleaning} if cleaning else {}),
        "tokenizer": identity_digest({"": [tokenizer.backend_tokenizer.to_str(), tokenizer.eos_token]}),
    }
