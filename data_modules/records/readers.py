"""Records from files: json, jsonl, csv, parquet, txt, a folder of them, or a Hugging Face dataset name."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from data_modules.digests import file_digest
from data_modules.errors import UserError
from data_modules.reasons import reason_of
from data_modules.records.csv_files import read_csv
from data_modules.records.data_files import SUFFIXES, data_files
from data_modules.records.json_files import read_json, read_jsonl
from data_modules.records.parquet_files import read_parquet
from data_modules.records.record import Record, Reject
from data_modules.records.text_lines import read_lines


def read_records(source: str, *, reject: Reject) -> Iterator[Record]:
    """Read every record of a source in order, a few at a time.

    Args:
        source: A file, a folder (its data files, sorted, also in subfolders), or a hub dataset: `name`, or
            `name[split]` for another split than `train`.
        reject: Takes the message of each record that cannot be read.

    Raises:
        FileNotFoundError: If there is nothing of that name.
        UserError: If the source holds no records, or a file is empty, of an unknown type, or broken beyond single
            records.
    """
    is_empty = True

    def _reject(message: str) -> None:
        nonlocal is_empty
        is_empty = False
        reject(message)

    for record in _read(source, _reject):
        is_empty = False
        yield record
    if is_empty:
        raise UserError(f"{source}: holds no records; expected at least one.")


def source_fingerprint(source: str) -> str:
    """A digest of what a source holds: of the bytes of its files, or the hub dataset's own fingerprint."""
    if _is_hub_name(source):
        return str(_load_hub(source)._fingerprint)
    digest = hashlib.sha256()
    for file in data_files(source):
        name = file.relative_to(source) if Path(source).is_dir() else file.suffix
        digest.update(f"{name}\n".encode())
        digest.update(bytes.fromhex(file_digest(file)))
    return digest.hexdigest()


def _read(source: str, reject: Reject) -> Iterator[Record]:
    if _is_hub_name(source):
        yield from _read_hub(source)
        return
    for file in data_files(source):
        if file.stat().st_size == 0:
            raise UserError(f"{file}: the file is empty; expected at least one record.")
        yield from READERS[file.suffix.lower()](file, reject)


def _read_txt(path: Path, reject: Reject) -> Iterator[Record]:
    """Every line that is not blank is a document."""
    for number, line in read_lines(path, reject):
        yield Record({"text": line}, f"{path}:{number}")


READERS: dict[str, Callable[[Path, Reject], Iterator[Record]]] = {
    ".json": read_json,
    ".jsonl": read_jsonl,
    ".csv": read_csv,
    ".parquet": read_parquet,
    ".txt": _read_txt,
}
assert set(READERS) == set(SUFFIXES)


def _load_hub(source: str) -> Any:
    name, _, split = source.rstrip("]").partition("[")
    try:
        from datasets import load_dataset
    except ImportError:
        raise UserError(
            f"{name}: no such file or folder, and reading a hub dataset needs the package `datasets`: "
            "`pip install 'lit_sft[hub]'`."
        ) from None
    try:
        return load_dataset(name, split=split or "train")
    except Exception as error:
        # `datasets` raises a dozen unrelated types here, from connection errors to its own
        raise UserError(
            f"{name}: neither a file or folder here nor a dataset that could be loaded from the hub "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}). "
            "Check the path or name and the connection."
        ) from error


def _read_hub(source: str) -> Iterator[Record]:
    rows, number = iter(_load_hub(source)), 0
    while True:
        number += 1
        try:
            fields = next(rows, None)
        except Exception as error:  # of Arrow, Python's dates or a decoder of images
            raise UserError(
                f"{source}:{number}: cannot be read ({type(error).__name__}: {reason_of(error, 100)}); "
                "leave the column out."
            ) from error
        if fields is None:
            return
        yield Record(dict(fields), f"{source}:{number}")


def _is_hub_name(source: str) -> bool:
    """Whether a source can only be the name of a dataset: nothing here has that name, and it looks like one."""
    path = Path(source)
    if path.exists() or path.is_symlink() or path.suffix.lower() in READERS:
        return False
    return re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?(\[[^\[\]]+\])?", source) is not None
