"""Reads records from json, jsonl, csv, tsv, parquet and txt files, from folders, and from Hugging Face datasets."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from data_modules.digests import file_digest
from data_modules.errors import UserError
from data_modules.records.csv_files import read_csv
from data_modules.records.data_files import SUFFIXES, data_files
from data_modules.records.json_files import read_json, read_jsonl
from data_modules.records.parquet_files import read_parquet
from data_modules.records.record import Record, Reject
from data_modules.records.text_lines import USUAL, Reading, check_encoding
from data_modules.records.txt_files import read_txt
from data_modules.wording import reason_of


def read_records(source: str, *, reject: Reject, reading: Reading = USUAL) -> Iterator[Record]:
    """Read every record of a source in order, a few at a time.

    Args:
        source: A file, a folder (all data files in it, recursively, sorted), or a hub dataset: `name`, or
            `name[split]` for a split other than `train`.
        reject: Receives the message for each unreadable record.
        reading: How files are read.

    Raises:
        FileNotFoundError: If the source does not exist.
        UserError: If the source contains no records, or a file is empty, of an unknown type, or damaged as a whole.
    """
    is_empty = True

    def _reject(message: str) -> None:
        nonlocal is_empty
        is_empty = False
        reject(message)

    for record in _read(source, _reject, reading):
        is_empty = False
        yield record
    if is_empty:
        raise UserError(f"{source}: no records; expected at least one.")


def source_fingerprint(source: str) -> str:
    """A digest of a source: of the bytes of its files, or the hub dataset's own fingerprint."""
    if is_hub_name(source):
        return str(_load_hub(source)._fingerprint)
    digest = hashlib.sha256()
    for file in data_files(source):
        name = file.relative_to(source) if Path(source).is_dir() else file.suffix
        digest.update(f"{name}\n".encode())
        digest.update(bytes.fromhex(file_digest(file)))
    return digest.hexdigest()


def source_bytes(source: str) -> int | None:
    """The size of a source's files; None for a hub dataset."""
    if is_hub_name(source):
        return None
    return sum(file.stat().st_size for file in data_files(source))


def _read(source: str, reject: Reject, reading: Reading) -> Iterator[Record]:
    if is_hub_name(source):
        yield from _read_hub(source, reading)
        return
    for file in data_files(source):
        if file.stat().st_size == 0:
            raise UserError(f"{file}: the file is empty; expected at least one record.")
        if file.suffix.lower() != ".parquet":
            check_encoding(file)
        yield from READERS[file.suffix.lower()](file, reject, reading)


READERS: dict[str, Callable[[Path, Reject, Reading], Iterator[Record]]] = {
    ".json": read_json,
    ".jsonl": read_jsonl,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".parquet": read_parquet,
    ".txt": read_txt,
}
assert set(READERS) == set(SUFFIXES)


def _load_hub(source: str) -> Any:
    name, _, split = source.rstrip("]").partition("[")
    try:
        from datasets import load_dataset
    except ImportError:
        raise UserError(
            f"{name}: no such file or folder. To read a hub dataset, install the package `datasets`: "
            "`pip install 'lit_sft[hub]'`."
        ) from None
    try:
        return load_dataset(name, split=split or "train")
    except Exception as error:
        # `datasets` raises a dozen unrelated types here, from connection errors to its own
        raise UserError(
            f"{name}: no such file or folder, and no dataset of that name could be loaded from the hub "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}). "
            "Check the path or name, and the connection."
        ) from error


def _read_hub(source: str, reading: Reading) -> Iterator[Record]:
    rows, number = iter(_load_hub(source)), 0
    while True:
        number += 1
        try:
            fields = next(rows, None)
        except Exception as error:  # from Arrow, Python's dates or an image decoder
            raise UserError(
                f"{source}:{number}: cannot be read ({type(error).__name__}: {reason_of(error, 100)}); "
                "remove the column."
            ) from error
        if fields is None:
            return
        reading.on_bytes(sum(len(value) for value in fields.values() if isinstance(value, str)))
        yield Record(dict(fields), f"{source}:{number}")


def is_hub_name(source: str) -> bool:
    """Whether a source must be a dataset name: it looks like one, and no such path exists."""
    path = Path(source)
    if path.exists() or path.is_symlink() or path.suffix.lower() in READERS:
        return False
    return re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?(\[[^\[\]]+\])?", source) is not None
