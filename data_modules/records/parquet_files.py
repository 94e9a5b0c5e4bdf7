"""Records from .parquet files, read in batches of rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_modules.errors import UserError
from data_modules.records.record import Record, Reject, readable
from data_modules.records.text_lines import USUAL, Reading
from data_modules.wording import reason_of

_ROWS_AT_ONCE = 1024


def read_parquet(path: Path, reject: Reject, reading: Reading = USUAL) -> Iterator[Record]:
    """Read rows as fields named by their columns.

    Raises:
        UserError: If the file is damaged or encrypted, or two columns share a name.
    """
    import pyarrow.parquet as pq  # slow to import, and rarely needed

    number = 0
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            _check_columns(file.schema_arrow, path)
            bytes_per_row = path.stat().st_size / max(1, file.metadata.num_rows)
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE):
                yield from _rows(_with_plain_times(batch), path, number, reject)
                number += batch.num_rows
                reading.on_bytes(int(batch.num_rows * bytes_per_row))
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, PermissionError):
            raise
        raise UserError(f"{path}: {_where(number)} ({reason_of(error)}); write it again, unencrypted.") from None


def _where(number: int) -> str:
    return f"damaged after row {number}" if number else "not a readable parquet file"


def _check_columns(fields: Any, path: Path, parent: str = "") -> None:
    """Refuse duplicate or empty names at any depth: a row is read as a dict."""
    names = [field.name for field in fields]
    for name, times in Counter(names).items():
        if times > 1:
            raise UserError(f"{path}: duplicate column {parent + readable(name)!r}; rename or remove one.")
        if not name.strip():
            raise UserError(f"{path}: column {names.index(name) + 1} has no name; name or remove it.")
    for field in fields:
        kind = field.type
        while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            kind = kind.value_type
        if pa.types.is_struct(kind):
            _check_columns([kind.field(i) for i in range(kind.num_fields)], path, f"{parent}{readable(field.name)}.")


def _with_plain_times(batch: Any) -> Any:
    """Convert times to microseconds in UTC: nanoseconds need pandas, and time zones need a zone database."""
    fields = [field.with_type(_plain_time(field.type)) for field in batch.schema]
    if pa.schema(fields) == batch.schema:
        return batch
    columns = [column.cast(field.type, safe=False) for column, field in zip(batch.columns, fields, strict=True)]
    return pa.record_batch(columns, schema=pa.schema(fields))


def _plain_time(kind: Any) -> Any:
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us" if kind.unit == "ns" else kind.unit)
    if getattr(kind, "unit", None) != "ns":
        return kind
    return pa.duration("us") if pa.types.is_duration(kind) else pa.time64("us")


def _rows(batch: Any, path: Path, before: int, reject: Reject) -> Iterator[Record]:
    try:
        rows: list[dict[str, Any] | None] = batch.to_pylist()
    except Exception:  # from Arrow, Python's dates or a time zone; _row finds the value
        rows = [None] * batch.num_rows
    for index, fields in enumerate(rows):
        place = f"{path}:row {before + index + 1}"
        if fields is None:
            fields = _row(batch.slice(index, 1), place, reject)
        if fields is not None:
            yield Record(fields, place)


def _row(batch: Any, place: str, reject: Reject) -> dict[str, Any] | None:
    """One row, read cell by cell; None if a value has no Python equivalent, such as a date in the year 10,000."""
    fields = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            fields[name] = column[0].as_py()
        except Exception as error:  # as above
            reject(
                f"{place}: column {readable(name)!r}: {column.type} value cannot be read "
                f"({reason_of(error, 100)}); correct the value or remove the column."
            )
            return None
    return fields
