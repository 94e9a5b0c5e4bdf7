"""Replies of a model behind an API, kept on disk: none is paid for twice."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lit_sft.files import append_line, read_rows


@dataclass(frozen=True, slots=True)
class Reply:
    """A model's reply.

    Attributes:
        text: Without lone surrogates. It may repeat a credential: mask it before you show or write it.
        tokens_read: Tokens of the prompt; 0 if the endpoint does not report them.
        tokens_written: Tokens of the reply; 0 if the endpoint does not report them.
    """

    text: str
    tokens_read: int = 0
    tokens_written: int = 0


class Replies:
    """Replies kept as JSON lines, each written when it arrives, so that a killed process loses none.

    Args:
        path: The file. Unreadable lines are ignored; those prompts are sent again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._known: dict[str, Reply] = {}
        for row in read_rows(path).rows if path.is_file() else []:
            if isinstance(row.get("key"), str) and isinstance(row.get("text"), str):
                counts = (count_of(row.get(name)) for name in ("tokens_read", "tokens_written"))
                self._known[row["key"]] = Reply(row["text"], *counts)

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> Reply | None:
        """The reply stored under a key."""
        return self._known.get(key)

    def keep(self, key: str, reply: Reply) -> None:
        """Store a reply and flush it to the disk."""
        with self._lock:
            self._known[key] = reply
            self.path.parent.mkdir(parents=True, exist_ok=True)
            append_line(self.path, {"key": key, **asdict(reply)}, sync=True)


def count_of(value: Any) -> int:
    """A number of tokens; 0 if the value is not a plausible one."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else 0
