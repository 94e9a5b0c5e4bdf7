"""Encoded examples on disk: one memory-mapped Arrow file per split, so that a million examples take no RAM.

The weights of messages, which few examples have, follow the kinds of the tokens, as the bytes of float32 numbers. So
they take no space in the other examples. A token that a convention labels has the highest bit of its kind set. A
preference pair is one row: the document with the chosen answer, then that with the rejected one.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterable, Iterator, Sequence, Sized
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_modules.encoding.example import Example
from data_modules.rendering.masking import Kinds

_SCHEMA = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),
        ("kinds", pa.list_(pa.uint8())),
        ("turns", pa.list_(pa.int16())),
        ("origin", pa.string()),
        ("hash", pa.uint64()),
        ("rejected", pa.int32()),  # tokens of the rejected document; 0 if the row is not a pair
    ]
)

_LABELLED = np.uint8(128)


def record_batch(examples: list[Example], hashes: list[int] | None = None) -> pa.RecordBatch:
    """Examples as one record batch of an Arrow file.

    Args:
        examples: The examples.
        hashes: The `hash` of each. None: their own.
    """
    origins = [example.origin.encode() for example in examples]
    ends, text = _ends(origins), pa.py_buffer(b"".join(origins))
    kinds = [_joined(_with_weights(each) for each in _halves(example)) for example in examples]
    ids, turns = (
        [_joined(getattr(each, name) for each in _halves(example)) for example in examples]
        for name in ("input_ids", "turns")
    )
    columns = [_column(_SCHEMA.field(0), ids), _column(_SCHEMA.field(1), kinds), _column(_SCHEMA.field(2), turns)]
    hashes = [example.hash for example in examples] if hashes is None else hashes
    numbers = _values(pa.uint64(), np.asarray(hashes, dtype=np.uint64))
    rejected = np.asarray([len(each.rejected) if each.rejected else 0 for each in examples], dtype=np.int32)
    texts = pa.StringArray.from_buffers(len(examples), ends, text)
    return pa.record_batch([*columns, texts, numbers, _values(pa.int32(), rejected)], schema=_SCHEMA)


def _halves(example: Example) -> tuple[Example, ...]:
    """The documents of an example: both of a pair, or one."""
    return (example,) if example.rejected is None else (example, example.rejected)


def _joined(parts: Iterable[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    first, *others = parts
    return np.concatenate([first, *others]) if others else first


def _with_weights(example: Example) -> Kinds:
    """The kinds of an example's tokens, then its messages' weights, if it has any."""
    weights, kinds = example.message_weights, example.kinds
    if example.labelled is not None:
        kinds = kinds | (example.labelled.astype(np.uint8) * _LABELLED)
    return np.concatenate([kinds, weights.view(np.uint8)]) if len(weights) else kinds


def _column(field: pa.Field, parts: Sequence[npt.NDArray[Any]]) -> pa.Array:
    """One field of all examples, concatenated in memory: Arrow would convert it number by number."""
    numbers = np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint8)
    values = _values(field.type.value_type, numbers)
    return pa.Array.from_buffers(field.type, len(parts), [None, _ends(parts)], children=[values])


def _values(kind: pa.DataType, numbers: npt.NDArray[Any]) -> pa.Array:
    """An Arrow array of numbers. Arrow's own `array` first imports pandas, which takes 0.3 seconds."""
    return pa.Array.from_buffers(kind, len(numbers), [None, pa.py_buffer(numbers)])


def _ends(parts: Iterable[Sized]) -> pa.Buffer:
    """Arrow offsets: the start of each part, then the end of the last."""
    return pa.py_buffer(np.cumsum([0, *map(len, parts)], dtype=np.int32))


def write_batches(path: Path, batches: Iterable[pa.RecordBatch]) -> None:
    """Write an Arrow file batch by batch."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
        for batch in batches:
            writer.write_batch(batch)


class ExampleStore:
    """Examples from files by `write_batches`, by index. Pickled as its paths, for data loader workers.

    Args:
        path: The file, or one file for each source of a mixture.
        rows: Which examples, as indices into all of the files' examples one file after the other; an example may occur
            several times. None: each once.
    """

    def __init__(self, path: Path | Sequence[Path], rows: npt.NDArray[np.int64] | None = None) -> None:
        self.path, self._rows = path, rows
        paths = [path] if isinstance(path, Path) else path
        first = -1 if isinstance(path, Path) else 0
        readers = [pa.ipc.open_file(pa.memory_map(str(each))) for each in paths]
        self._batches = [reader.get_batch(i) for reader in readers for i in range(reader.num_record_batches)]
        self._sources = [
            source for source, reader in enumerate(readers, first) for _ in range(reader.num_record_batches)
        ]
        self._starts = np.cumsum([0, *(batch.num_rows for batch in self._batches)]).tolist()

    def __reduce__(self) -> tuple[Any, ...]:
        return ExampleStore, (self.path, self._rows)

    def __len__(self) -> int:
        return int(self._starts[-1]) if self._rows is None else len(self._rows)

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path}: example {index} of {len(self)}")
        which, row = self._place(index)
        batch = self._batches[which]
        ids, kinds, turns = (_numbers(batch.column(i)[row].values) for i in range(3))
        weights = np.frombuffer(kinds[len(ids) :].tobytes(), dtype=np.float32)
        kinds, labelled = kinds[: len(ids)], None
        if (kinds >= _LABELLED).any():
            kinds, labelled = kinds % _LABELLED, kinds >= _LABELLED
        origin, number = batch.column(3)[row].as_py(), batch.column(4)[row].as_py()
        cut = len(ids) - _rejected(batch, row)
        rejected = None
        if cut < len(ids):
            rejected = Example(ids[cut:], kinds[cut:], turns[cut:], origin, hash=number, source=self._sources[which])
            ids, kinds, turns = ids[:cut], kinds[:cut], turns[:cut]
        return Example(ids, kinds, turns, origin, weights, labelled, number, self._sources[which], rejected)

    def ids(self, index: int) -> npt.NDArray[np.int32]:
        """The token ids of an example, without the rest of it: of both documents of a pair, one after the other."""
        which, row = self._place(index)
        numbers: npt.NDArray[np.int32] = _numbers(self._batches[which].column(0)[row].values)
        return numbers

    def _place(self, index: int) -> tuple[int, int]:
        """The batch of an example, and its row there."""
        place = index if self._rows is None else int(self._rows[index])
        which = bisect.bisect_right(self._starts, place) - 1
        return which, place - self._starts[which]

    def __iter__(self) -> Iterator[Example]:
        return (self[index] for index in range(len(self)))

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens in each example, (number of examples,): in both documents of a pair."""
        parts = [np.diff(_numbers(batch.column(0).offsets)) for batch in self._batches]
        return self._of_rows(parts).astype(np.int64)

    @cached_property
    def rejected_lengths(self) -> npt.NDArray[np.int64]:
        """Tokens in the rejected document of each pair, (number of examples,); 0 for examples that are not pairs."""
        return self._of_rows([_rejected_lengths(batch) for batch in self._batches]).astype(np.int64)

    @cached_property
    def hashes(self) -> npt.NDArray[np.uint64]:
        """The `hash_of` the record of each example, (number of examples,)."""
        return self._of_rows([_numbers(batch.column(4)) for batch in self._batches]).astype(np.uint64)

    @cached_property
    def sources(self) -> npt.NDArray[np.int64]:
        """Index of the source of each example, (number of examples,); -1 outside mixtures."""
        return self._of_rows([np.repeat(self._sources, [batch.num_rows for batch in self._batches])]).astype(np.int64)

    @property
    def mean_length(self) -> float:
        """Mean number of tokens in an example."""
        return float(self.lengths.mean())

    def digest(self) -> str:
        """A digest of everything in the examples that metrics depend on."""
        digest = hashlib.sha256()
        for each in (half for example in self for half in _halves(example)):
            digest.update(each.input_ids.tobytes() + each.kinds.tobytes() + each.turns.tobytes())
        return digest.hexdigest()[:16]

    def _of_rows(self, parts: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        values = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
        return values if self._rows is None else values[self._rows]


def _rejected(batch: pa.RecordBatch, row: int) -> int:
    # data that was cached before there were pairs has no such column
    return batch.column(5)[row].as_py() if batch.num_columns > 5 else 0


def _rejected_lengths(batch: pa.RecordBatch) -> Any:
    return _numbers(batch.column(5)) if batch.num_columns > 5 else np.zeros(batch.num_rows, dtype=np.int32)


def _numbers(values: pa.Array) -> Any:
    """A numpy view of an Arrow array. Arrow's own `to_numpy` first imports pandas, which takes 0.3 seconds."""
    return np.from_dlpack(values)
