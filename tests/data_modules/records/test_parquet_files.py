from __future__ import annotations

import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_modules.records.readers import read_records


def read(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    rejected: list[str] = []
    rows = [record.fields for record in read_records(str(path), reject=rejected.append)]
    return rows, [message.removeprefix(str(path)) for message in rejected]


def times(kind: pa.DataType, *values: int) -> pa.Array:
    return pa.array(values, pa.int32() if kind == pa.date32() else pa.int64()).view(kind)


@pytest.mark.parametrize(
    "kind",
    [
        pa.date32(),
        pa.timestamp("ms"),
        pa.timestamp("us"),
        pa.timestamp("us", "Nowhere/Else"),
        pa.duration("ms"),
    ],
    ids=str,
)
def test_only_the_row_with_an_unsupported_date_is_dropped(tmp_path: Path, kind: pa.DataType) -> None:
    far = 10**9 if kind == pa.date32() else 2**62
    pq.write_table(pa.table({"text": ["a", "b", "c"], "day": times(kind, 0, far, 1)}), tmp_path / "a.parquet")
    rows, rejected = read(tmp_path / "a.parquet")
    assert [row["text"] for row in rows] == ["a", "c"]
    assert len(rejected) == 1
    assert rejected[0].startswith(":row 2: column 'day': ")
    assert rejected[0].endswith("correct the value or remove the column.")


def test_times_of_any_unit_and_zone_are_read(tmp_path: Path) -> None:
    kinds = [pa.timestamp("ns"), pa.timestamp("ns", "Nowhere/Else"), pa.time64("ns"), pa.duration("ns")]
    columns = {f"t{i}": times(kind, 5_000, 6_001) for i, kind in enumerate(kinds)}
    pq.write_table(pa.table({"text": ["a", "b"], **columns}), tmp_path / "a.parquet")
    rows, rejected = read(tmp_path / "a.parquet")
    assert [row["t0"].microsecond for row in rows] == [5, 6]
    assert [row["t2"].microsecond for row in rows] == [5, 6]
    assert rejected == []


def test_odd_columns_are_read_as_python_values(tmp_path: Path) -> None:
    columns = {
        "text": pa.array(["a", "b", "a"]).dictionary_encode(),
        "price": pa.array([Decimal("1.50")] * 3),
        "raw": pa.array([b"\xff"] * 3),
        "nested": pa.array([{"x": [{"y": 1}]}] * 3),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    rows, rejected = read(tmp_path / "a.parquet")
    assert rows[2] == {"text": "a", "price": Decimal("1.50"), "raw": b"\xff", "nested": {"x": [{"y": 1}]}}
    assert rejected == []


def test_only_the_row_with_invalid_utf8_is_dropped(tmp_path: Path) -> None:
    raw = pa.array([b"a", b"\xff", b"c"])
    texts = pa.StringArray.from_buffers(3, *raw.buffers()[1:])
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    rows, rejected = read(tmp_path / "a.parquet")
    assert [row["text"] for row in rows] == ["a", "c"]
    assert len(rejected) == 1
    assert rejected[0].startswith(":row 2: column 'text': string value cannot be read")


def test_duplicate_column_names_are_refused(tmp_path: Path) -> None:
    text, pair = pa.array(["a"]), pa.struct([pa.field("x", pa.string()), pa.field("x", pa.string())])
    tables = {
        "duplicate column 'text'": pa.Table.from_arrays([text, text], names=["text", "text"]),
        r"duplicate column 'messages\.x'": pa.table({"messages": pa.array([[None]], pa.list_(pair))}),
        "column 2 has no name": pa.Table.from_arrays([text, text], names=["text", ""]),
    }
    for message, table in tables.items():
        pq.write_table(table, tmp_path / "a.parquet")
        with pytest.raises(ValueError, match=rf"a\.parquet: {message}"):
            read(tmp_path / "a.parquet")


def test_damaged_and_encrypted_files_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"text": [f"document {n}" for n in range(5000)]})
    pq.write_table(table, path, row_group_size=1000, write_page_checksum=True)
    whole, (rows, _) = path.read_bytes(), read(path)
    damaged = [whole[:-4] + b"PARE", whole[: len(whole) // 2], whole[100:], bytes(len(whole))]
    draw = random.Random(0)
    for _ in range(60):
        flipped = bytearray(whole)
        flipped[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        damaged.append(bytes(flipped))
    messages = []
    for raw in damaged:
        path.write_bytes(raw)
        try:
            assert read(path) == (rows, [])  # nothing reads that byte
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) > 50
    assert all(message.startswith(f"{path}: ") and "\n" not in message for message in messages)
