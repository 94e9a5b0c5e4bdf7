"""One process at a time: a lock that names its owner, and that a killed process gives up."""

from __future__ import annotations

import contextlib
import errno
import getpass
import json
import os
import socket
import warnings
import weakref
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType

from data_modules.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
"""What a file system without locks answers."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that holds a lock.

    Attributes:
        host: Name of its machine.
        pid: Its number there.
        user: Who started it.
        since: Local time at which it took the lock, to the second.
    """

    host: str
    pid: int
    user: str
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} ({self.user}, since {self.since})"


def only_one(path: Path, refusal: Callable[[str], str]) -> FileLock:
    """Hold a lock while a block runs: `with only_one(path, refusal):`. For the arguments, see `FileLock`."""
    return FileLock(path, refusal)


class FileLock:
    """Held by one process at a time, until it is released or the process ends, however it ends.

    The kernel sees to that. On a file system without locks, the file with the owner's name is the lock; one left by a
    process of this machine that is gone is taken over.

    Args:
        path: The lock's file; it is there while the lock is held, and names the owner.
        refusal: What to say where another process holds it, given that process's name.

    Raises:
        UserError: If another process holds it.
        OSError: If there can be no such file.
    """

    def __init__(self, path: Path, refusal: Callable[[str], str]) -> None:
        self.path, self.refusal = path, refusal
        self._descriptor: int | None = None
        if fcntl is None or not self._lock():
            self._create()
        _held.add(self)

    def release(self) -> None:
        """Let others have it."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)
        self._close()

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.release()

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _lock(self) -> bool:
        """Lock the file. False if the file system has no locks."""
        flags, is_made = os.O_RDONLY, False  # a file open for writing would keep its disk from being made read-only
        while True:
            descriptor, is_new = self._open(flags)
            is_made |= is_new
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(descriptor)
                if error.errno == errno.EBADF and flags == os.O_RDONLY:
                    flags = os.O_RDWR  # NFS locks only files that are open for writing
                    continue
                if error.errno in _HELD:
                    raise UserError(self._refusal()) from None
                if error.errno not in _NO_LOCKS:
                    raise
                if is_made:
                    self.path.unlink(missing_ok=True)
                return False
            if _is_same_file(descriptor, self.path):
                self._sign(descriptor)
                return True
            os.close(descriptor)  # its last owner removed it between our opening and our locking it

    def _open(self, flags: int) -> tuple[int, bool]:
        """The file, and whether it was made now."""
        while True:
            with contextlib.suppress(FileExistsError):
                return os.open(self.path, flags | os.O_CREAT | os.O_EXCL, 0o644), True
            with contextlib.suppress(FileNotFoundError):
                return os.open(self.path, flags), False

    def _create(self) -> None:
        """Make the file, which is the lock where there is no other."""
        for _ in range(10):
            if _is_stale(self.path):
                self.path.unlink(missing_ok=True)
            try:
                descriptor = os.open(self.path, os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0o644)
            except FileExistsError:
                continue
            self._sign(descriptor)
            warnings.warn(
                f"{self.path}: this file system has no locks, so this file is the lock; it stays behind if this "
                "process is killed.",
                stacklevel=4,
            )
            return
        raise UserError(f"{self._refusal()} If that process is gone, remove {self.path}.")

    def _sign(self, descriptor: int) -> None:
        self._descriptor = descriptor
        try:
            self.path.write_bytes(_signature())
        except OSError:
            self._close()
            raise

    def _refusal(self) -> str:
        return self.refusal(str(_owner(self.path) or "a process whose name cannot be read"))


_held: weakref.WeakSet[FileLock] = weakref.WeakSet()


def _leave_to_parent() -> None:
    """A forked process would keep the lock of a parent that is killed."""
    for lock in list(_held):
        lock._close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _signature() -> bytes:
    """The present process as the content of a lock."""
    since = datetime.now().isoformat(sep=" ", timespec="seconds")
    return json.dumps(asdict(Owner(socket.gethostname(), os.getpid(), _user(), since))).encode()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number without a name, as in some containers
        return str(os.getuid()) if hasattr(os, "getuid") else "an unknown user"


def _owner(path: Path) -> Owner | None:
    """Who signed a lock; None if that cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Owner(str(found["host"]), int(found["pid"]), str(found["user"]), str(found["since"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_stale(path: Path) -> bool:
    """Whether a lock was left by a process of this machine that is gone."""
    owner = _owner(path)
    if owner is None or owner.host != socket.gethostname() or os.name == "nt":  # where signal 0 is not a question
        return False
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False  # it is another user's
    return False
