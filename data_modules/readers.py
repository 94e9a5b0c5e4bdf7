"""Records from files: json, jsonl, csv, parquet, txt, a folder of them, or a Hugging Face dataset name."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Reject = Callable[[str], None]
"""Called with a located message for a record that cannot be used; raises, or counts it and returns."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it stands in a file.

    Attributes:
        fields: Field name to value.
        origin: `file:line` (`file:row N` for parquet, `name:N` for a hub dataset), counted from 1.
    """

    fields: dict[str, Any]
    origin: str

    @property
    def field_names(self) -> str:
        """For messages: a file may call its fields anything."""
        return ", ".join((name if name.isprintable() else ascii(name))[:60] for name in self.fields)


def read_records(source: str, *, reject: Reject) -> Iterator[Record]:
    """Read every record of a source in order, a few at a time.

    Args:
        source: A file, a folder (its data files, sorted, also in subfolders), or a hub dataset: `name`, or
            `name[split]` for another split than `train`.
        reject: Told of each record that is no object, or each line that cannot be parsed.

    Raises:
        FileNotFoundError: If there is nothing of that name.
        ValueError: If a file is empty, of an unknown type, or broken beyond single records.
    """
    if Path(source).exists():
        for file in data_files(source):
            yield from _read_file(file, reject)
    elif _looks_like_hub_name(source):
        for number, fields in enumerate(_load_hub(source), start=1):
            yield Record(dict(fields), f"{source}:{number}")
    else:
        raise FileNotFoundError(_missing(source))


def data_files(source: str) -> list[Path]:
    """The data files of a file or folder, sorted.

    Raises:
        ValueError: If a folder holds no data file, or the type of a file is unknown.
    """
    path = Path(source)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in READERS and file.is_file())
        if not files:
            raise ValueError(f"{path}: no data file in this folder; expected {_known_types()}.")
        return files
    if path.suffix.lower() not in READERS:
        raise ValueError(f"{path}: unknown file type '{path.suffix}'; expected {_known_types()}.")
    return [path]


def source_fingerprint(source: str) -> str:
    """A digest of what a source holds: of the bytes of its files, or the hub dataset's own fingerprint."""
    if not Path(source).exists() and _looks_like_hub_name(source):
        return str(_load_hub(source)._fingerprint)
    if not Path(source).exists():
        raise FileNotFoundError(_missing(source))
    digest = hashlib.sha256()
    for file in data_files(source):
        name = file.relative_to(source) if Path(source).is_dir() else file.suffix
        digest.update(f"{name}\n".encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _read_file(path: Path, reject: Reject) -> Iterator[Record]:
    empty = True
    for record in READERS[path.suffix.lower()](path, reject):
        empty = False
        yield record
    if empty and path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty; expected at least one record.")


def _read_json(path: Path, reject: Reject) -> Iterator[Record]:
    """A JSON list of objects, decoded one element at a time so that each keeps its line number."""
    text = _decode(path.read_bytes(), str(path))
    decoder = json.JSONDecoder(object_pairs_hook=_object)
    at, line = _skip_space(text, 0), 1
    if at < len(text) and text[at] != "[":
        raise ValueError(
            f"{path}:{1 + text.count(chr(10), 0, at)}: a .json file must hold a list of records, found "
            f"{text[at : at + 20]!r}; wrap the records in [ ], or rename a file of one record a line to .jsonl."
        )
    at, seen, number, before = _skip_space(text, at + 1), 0, 0, 0
    while at < len(text) and text[at] != "]":
        before, number = (line, number + 1) if number else (0, 1)
        line, seen = line + text.count("\n", seen, at), at
        try:
            fields, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise ValueError(_bad_json(path, error.lineno, error)) from None
        except RecursionError:
            raise ValueError(f"{path}:{line}: nested too deeply to be a record; expected a flat object.") from None
        except ValueError as error:
            raise ValueError(f"{path}:{line}: {error}") from None
        # several on one line are told apart by their number
        yield from _as_record(fields, f"{path}:{line}" + (f" (record {number})" if line == before else ""), reject)
        at = _next_element(text, end, path)
    if text and at >= len(text):
        raise ValueError(f"{path}: the list does not end with ']'; the file seems cut off, write it again.")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, which allows a name twice and says nothing of which value is meant."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the field {twice!r} stands there twice; keep one of them.")
    return fields


def _next_element(text: str, end: int, path: Path) -> int:
    at = _skip_space(text, end)
    if at < len(text) and text[at] == ",":
        return _skip_space(text, at + 1)
    if at < len(text) and text[at] != "]":
        line = 1 + text.count("\n", 0, at)
        raise ValueError(f"{path}:{line}: found {text[at : at + 20]!r}; expected ',' or ']' between records.")
    return at


_SPACE = re.compile(r"[ \t\r\n]*")


def _skip_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None  # the pattern matches the empty string
    return match.end()


def _read_jsonl(path: Path, reject: Reject) -> Iterator[Record]:
    for number, line in _lines(path):
        try:
            fields = json.loads(line, object_pairs_hook=_object)
        except json.JSONDecodeError as error:
            reject(_bad_json(path, number, error))
        except RecursionError:
            reject(f"{path}:{number}: nested too deeply to be a record; expected a flat object.")
        except ValueError as error:
            reject(f"{path}:{number}: {error}")
        else:
            yield from _as_record(fields, f"{path}:{number}", reject)


def _read_csv(path: Path, reject: Reject) -> Iterator[Record]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, strict=True)
        line = 2
        try:
            for row in reader:
                if None in row or None in row.values():
                    reject(
                        f"{path}:{line}: the row does not have the {len(reader.fieldnames or [])} columns of the "
                        f"header {reader.fieldnames}; quote fields that hold commas or line breaks."
                    )
                else:
                    yield Record(dict(row), f"{path}:{line}")
                line = reader.line_num + 1
        except csv.Error as error:
            raise ValueError(f"{path}:{line}: not valid CSV ({error}); quote the field properly.") from None
        except UnicodeDecodeError as error:
            raise ValueError(_not_utf8(f"{path}:{line}", error)) from None


def _read_parquet(path: Path, _reject: Reject) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: not a parquet file ({error}); check how it was written.") from None
    number = 0
    for batch in file.iter_batches(batch_size=1024):
        for fields in batch.to_pylist():
            number += 1
            yield Record(fields, f"{path}:row {number}")


def _read_txt(path: Path, _reject: Reject) -> Iterator[Record]:
    """Every line that is not blank is a document."""
    for number, line in _lines(path):
        yield Record({"text": line}, f"{path}:{number}")


READERS: dict[str, Callable[[Path, Reject], Iterator[Record]]] = {
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".txt": _read_txt,
}


def _missing(source: str) -> str:
    return f"{source}: no such file or folder; check the path (relative to {Path.cwd()})."


def _load_hub(source: str) -> Any:
    name, _, split = source.rstrip("]").partition("[")
    try:
        from datasets import load_dataset
    except ImportError:
        raise ValueError(
            f"{name}: no such file or folder, and reading a hub dataset needs the package `datasets`: "
            "`pip install 'lit_sft[hub]'`."
        ) from None
    try:
        return load_dataset(name, split=split or "train")
    except Exception as error:
        # `datasets` raises a dozen unrelated types here, from connection errors to its own
        raise ValueError(
            f"{name}: neither a file or folder here nor a dataset that could be loaded from the hub "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}). "
            "Check the path or name and the connection."
        ) from error


def _looks_like_hub_name(source: str) -> bool:
    has_type = Path(source).suffix.lower() in READERS
    return not has_type and re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?(\[[^\[\]]+\])?", source) is not None


def _as_record(fields: object, origin: str, reject: Reject) -> Iterator[Record]:
    if isinstance(fields, dict):
        yield Record(fields, origin)
    else:
        reject(f"{origin}: found {type(fields).__name__} {str(fields)[:40]!r}; expected an object with named fields.")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, numbered from 1, split at newlines only (never at U+2028 or a lone carriage return)."""
    with path.open("rb") as stream:
        for number, raw in enumerate(stream, start=1):
            line = _decode(raw.rstrip(b"\r\n"), f"{path}:{number}")
            if line.strip():
                yield number, line


def _decode(raw: bytes, origin: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(_not_utf8(origin, error)) from None


def _not_utf8(origin: str, error: UnicodeDecodeError) -> str:
    return f"{origin}: not UTF-8 ({error.reason} at byte {error.start}); save the file as UTF-8."


def _bad_json(path: Path, line: int, error: json.JSONDecodeError) -> str:
    return f"{path}:{line}: not valid JSON ({error.msg} at column {error.colno}); correct this line."


def _known_types() -> str:
    return ", ".join(READERS)
