"""Replies of a model, on disk as they came: none is paid for twice. Memory holds their places, not their texts."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO, cast

from data_modules.wording import counted
from lit_sft.endpoint.chat import Reply, count_of
from lit_sft.files import json_line

_LONGEST_LINE = 2**26
"""Bytes; a reply has at most 4 MB, which JSON escapes may multiply."""


@dataclass(frozen=True, slots=True)
class Billed:
    """Tokens that a journal says were paid for.

    Attributes:
        read: Tokens of prompts; at most, where the endpoint reported none.
        written: Tokens of replies; at most, where the endpoint reported none.
        unanswered: Requests among them that may have been billed although no reply came.
    """

    read: int = 0
    written: int = 0
    unanswered: int = 0

    def __add__(self, other: Billed) -> Billed:
        return Billed(self.read + other.read, self.written + other.written, self.unanswered + other.unanswered)


class Journal:
    """Replies as JSON lines. Each is on the disk before it is used, so that a killed process loses none.

    Thread-safe. Only one process at a time may write (`lit_sft.locks`). About 100 bytes of memory a reply.

    Args:
        path: The file. Unreadable lines are ignored; those requests are sent again.

    Attributes:
        unreadable: Lines that are not JSON objects, by number. A killed process may leave half a line.

    Raises:
        OSError: If the file exists and cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._places: dict[int, int] = {}  # 64 bits of a key's digest to twice the offset of its line, plus 1 if used
        self._billed: dict[str, Billed] = {}
        self._lock, self._sync_lock = threading.Lock(), threading.Lock()
        self._streams: dict[str, Any] = {}
        weakref.finalize(self, _close, self._streams)
        self._end = self._synced = 0
        self._is_whole = True
        self.unreadable: list[int] = []
        self._index_file()

    def __len__(self) -> int:
        return len(self._places)

    @property
    def damage(self) -> str:
        """What cannot be read, in a sentence; empty if everything can."""
        if not self.unreadable:
            return ""
        lines = counted(len(self.unreadable), "line")
        return (
            f"{self.path}: cannot read {lines}, the first is line {self.unreadable[0]:,}; a killed process may leave "
            "half a line. If there was a reply in it, that is asked for again."
        )

    def __contains__(self, key: str) -> bool:
        return _number(key) in self._places

    def get(self, key: str) -> Reply | None:
        """The reply stored under a key."""
        place = self._places.get(_number(key))
        row = None if place is None else self._row_at(place >> 1)
        # another key: the file was changed by another process, or two keys have the same digest
        return None if row is None or row.get("key") != key else _reply(row)

    def is_first_use(self, key: str) -> bool:
        """Whether a stored reply is marked as used for the first time, by this very call."""
        number = _number(key)
        with self._lock:
            place = self._places[number]
            self._places[number] = place | 1
        return not place & 1

    def billed(self, model: str) -> Billed:
        """Tokens of all replies of a model, and of its requests that may have been billed without a reply."""
        with self._lock:
            return self._billed.get(model, Billed())

    def keep(self, key: str, reply: Reply, *, model: str = "", at_most: Billed | None = None) -> None:
        """Store a reply and wait until it is on the disk.

        Args:
            key: What to store it under; the last reply of a key counts.
            reply: The reply, masked.
            model: Name of the model.
            at_most: Tokens that it may have cost; stored if the endpoint reports none.
        """
        counts = {"tokens_read": reply.tokens_read, "tokens_written": reply.tokens_written}
        more = {
            "model": model,
            "finish_reason": reply.finish_reason,
            "is_masked": reply.is_masked,
            "at_most": None if at_most is None or reply.is_metered else [at_most.read, at_most.written],
        }
        given = {name: value for name, value in more.items() if value}
        self._append({"key": key, "text": reply.text, **counts, **given})

    def note_unanswered(self, model: str, at_most: Billed) -> None:
        """Record a request that may have been billed although no reply came."""
        self._append({"model": model, "at_most": [at_most.read, at_most.written]})

    def close(self) -> None:
        """Close the file; it is opened again when needed."""
        with self._lock:
            _close(self._streams)

    def _append(self, row: dict[str, Any]) -> None:
        line = json_line(row).encode()
        with self._lock:
            writer = self._writer()
            begin = b"" if self._is_whole else b"\n"  # a killed process, or a full disk, left half a line
            self._is_whole = False
            _write(writer, begin + line)
            self._is_whole = True
            self._end = writer.tell()
            self._index(row, self._end - len(line))
            end = self._end
        self._sync(writer, end)

    def _sync(self, writer: FileIO, end: int) -> None:
        """Wait until the file is on the disk up to a byte. Threads that wait at the same time share one flush."""
        with self._sync_lock:
            if self._synced < end:
                reached = self._end
                os.fsync(writer.fileno())
                self._synced = reached

    def _writer(self) -> FileIO:
        if "writer" not in self._streams:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._streams["writer"] = FileIO(self.path, "a")
        return cast("FileIO", self._streams["writer"])

    def _reader(self) -> BinaryIO:
        if "reader" not in self._streams:
            self._streams["reader"] = self.path.open("rb")
        return cast("BinaryIO", self._streams["reader"])

    def _index_file(self) -> None:
        if not self.path.is_file():
            return
        for number, (offset, line) in enumerate(_lines(self.path), start=1):
            self._is_whole = line.endswith(b"\n")
            row = _row(line)
            if row is not None:
                self._index(row, offset)
            elif line.strip():
                self.unreadable.append(number)

    def _index(self, row: dict[str, Any], offset: int) -> None:
        key, model = row.get("key"), row.get("model")
        is_reply = isinstance(key, str) and isinstance(row.get("text"), str)
        if is_reply:
            self._places[_number(str(key))] = offset << 1
        if is_reply or "at_most" in row:
            name = model if isinstance(model, str) else ""
            self._billed[name] = self._billed.get(name, Billed()) + _billed(row)

    def _row_at(self, offset: int) -> dict[str, Any] | None:
        with self._lock:
            reader = self._reader()
            reader.seek(offset)
            return _row(reader.readline(_LONGEST_LINE))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines of a file, and where each begins. Of longer lines than any of ours, only pieces that are not JSON."""
    with path.open("rb") as stream:
        offset = 0
        while line := stream.readline(_LONGEST_LINE):
            yield offset, line
            offset += len(line)


def _row(line: bytes) -> dict[str, Any] | None:
    """The object in a line; None if it is damaged, as a killed process may leave it."""
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _reply(row: dict[str, Any]) -> Reply:
    reason = row.get("finish_reason")
    return Reply(
        row["text"],
        count_of(row.get("tokens_read")),
        count_of(row.get("tokens_written")),
        reason if isinstance(reason, str) else "",
        row.get("is_masked") is True,
    )


def _billed(row: dict[str, Any]) -> Billed:
    """Tokens that a line says were paid for: as reported, else at most."""
    bounds = row.get("at_most")
    if not isinstance(bounds, list) or len(bounds) != 2:
        bounds = [row.get("tokens_read"), row.get("tokens_written")]
    return Billed(count_of(bounds[0]), count_of(bounds[1]), "text" not in row)


def _number(key: str) -> int:
    """64 bits that stand for a key; the line itself tells keys with the same bits apart."""
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=8).digest())


def _write(stream: FileIO, data: bytes) -> None:
    """Write all of it; a file may take less at once.

    Raises:
        OSError: If the disk is full; names the file.
    """
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[stream.write(rest) :]
    except OSError as error:
        raise OSError(error.errno, error.strerror, stream.name) from None


def _close(streams: dict[str, Any]) -> None:
    for stream in streams.values():
        stream.close()
    streams.clear()
