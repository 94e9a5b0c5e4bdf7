"""How many votes a file has now: other programs may add to it, replace it, or remove it."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path


class VoteCount:
    """Counts the votes of a file; what was counted before is not read again. Thread-safe.

    A later vote with the same id replaces an earlier one. Damaged lines do not count.

    Args:
        path: The file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._identity: tuple[int, int] | None = None  # of the file that was read
        self._position = 0  # after the last whole line that was read
        self._size = 0  # when it was read
        self._ids = set[str]()
        self._known = set[str]()  # everything that was ever in the file

    def now(self) -> tuple[int, int]:
        """The votes in the file, and how many were in it before and no longer are.

        Raises:
            OSError: If it cannot be read.
        """
        with self._lock:
            self._read()
            self._known |= self._ids
            return len(self._ids), len(self._known) - len(self._ids)

    def _read(self) -> None:
        """Read what is new, or all if it is another file."""
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            self._forget(None)
            return
        identity = (found.st_dev, found.st_ino)
        if identity != self._identity or found.st_size < self._size:
            self._forget(identity)
        if found.st_size != self._size:
            with self._path.open("rb") as stream:
                stream.seek(self._position)
                content = stream.read()
            self._size = self._position + len(content)
            self._ids.update(_ids(content))
            self._position += content.rfind(b"\n") + 1

    def _forget(self, identity: tuple[int, int] | None) -> None:
        self._identity, self._position, self._size = identity, 0, 0
        self._ids = set()


def _ids(content: bytes) -> Iterator[str]:
    for line in content.split(b"\n"):
        try:
            yield str(json.loads(line.decode("utf-8-sig"))["id"])
        except (ValueError, TypeError, LookupError, RecursionError):
            continue
