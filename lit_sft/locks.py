"""A file lock that names its owner and is released when its process ends, even if killed."""

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

from data_modules.errors import UserError, UserNotice

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
"""Error codes of file systems without locks."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that holds a lock.

    Attributes:
        host: Name of its machine.
        pid: Its process id.
        user: Name of the user who started it.
        since: When it took the lock, in local time, to the second.
    """

    host: str
    pid: int
    user: str
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} ({self.user}, since {self.since})"


def only_one(path: Path, refusal: Callable[[str], str]) -> FileLock:
    """Hold a lock for the length of a block: `with only_one(path, refusal):`. See `FileLock` for the arguments."""
    return FileLock(path, refusal)


class FileLock:
    """A lock that one process holds until it releases it or ends, however it ends.

    The kernel guarantees that. On a file system without locks, the file itself is the lock; one left behind by a dead
    process on this machine is taken over.

    Args:
        path: The lock file. It exists while the lock is held, and names the owner.
        refusal: Makes the error message from the name of the process that holds the lock.

    Raises:
        UserError: If another process holds it.
        OSError: If the file cannot be created.
    """

    def __init__(self, path: Path, refusal: Callable[[str], str]) -> None:
        self.path, self.refusal = path, refusal
        self._descriptor: int | None = None
        if fcntl is None or not self._lock():
            self._create()
        _held.add(self)

    def release(self) -> None:
        """Release the lock."""
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
        flags, is_made = os.O_RDONLY, False  # a file open for writing would prevent remounting its disk read-only
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
            os.close(descriptor)  # its last owner removed it after we opened it and before we locked it

    def _open(self, flags: int) -> tuple[int, bool]:
        """Open the file; returns whether this call created it."""
        while True:
            with contextlib.suppress(FileExistsError):
                return os.open(self.path, flags | os.O_CREAT | os.O_EXCL, 0o644), True
            with contextlib.suppress(FileNotFoundError):
                return os.open(self.path, flags), False

    def _create(self) -> None:
        """Create the file, which is itself the lock on a file system without locks."""
        for _ in range(10):
            if _is_stale(self.path):
                self.path.unlink(missing_ok=True)
            try:
                descriptor = os.open(self.path, os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0o644)
            except FileExistsError:
                continue
            self._sign(descriptor)
            warnings.warn(
                f"{self.path}: this file system has no locks, so this file serves as the lock; it stays behind if "
                "this process is killed.",
                UserNotice,
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
        return self.refusal(str(_owner(self.path) or "an unknown process"))


_held: weakref.WeakSet[FileLock] = weakref.WeakSet()


def _leave_to_parent() -> None:
    """Drop inherited locks: a forked process would keep the lock of its parent after the parent is killed."""
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
    """The content of a lock file held by this process."""
    since = datetime.now().isoformat(sep=" ", timespec="seconds")
    return json.dumps(asdict(Owner(socket.gethostname(), os.getpid(), _user(), since))).encode()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in some containers
        return str(os.getuid()) if hasattr(os, "getuid") else "an unknown user"


def _owner(path: Path) -> Owner | None:
    """The owner named in a lock file; None if it cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Owner(str(found["host"]), int(found["pid"]), str(found["user"]), str(found["since"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_stale(path: Path) -> bool:
    """Whether a lock was left behind by a dead process on this machine."""
    owner = _owner(path)
    if owner is None or owner.host != socket.gethostname() or os.name == "nt":  # on Windows, os.kill would kill
        return False
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False  # alive, but another user's
    return False
