"""One process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def only_one(path: Path, refusal: Callable[[str], str]) -> Iterator[None]:
    """Hold a lock while a block runs. The system releases it when the process ends, however it ends.

    Args:
        path: The lock's file, which is left behind; it names the process that holds the lock.
        refusal: What to say where another process holds it, given that process's name.

    Raises:
        ValueError: If another process holds it.
    """
    with path.open("a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            owner = stream.read(200).strip() or "another process"
            raise ValueError(refusal(owner)) from None
        except OSError:
            pass  # a file system without locks
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        stream.flush()
        yield
