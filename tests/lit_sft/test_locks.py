from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lit_sft import locks
from lit_sft.locks import FileLock
from lit_sft.runs.lock import lock_run

HOLDER = """
import os, sys
from pathlib import Path
from lit_sft.runs.lock import lock_run
lock = lock_run(Path(sys.argv[1]))
if sys.argv[2] == "alone" or os.fork() == 0:
    print("held", flush=True)  # a child says so, once it has given up its copy of the lock
sys.stdin.read()
os._exit(0)
"""


def refusal(owner: str) -> str:
    return f"held by {owner}"


@pytest.fixture(params=["flock", "flock of NFS", "no flock", "no fcntl"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every kind of lock: the kernel's lock, or the file itself if the file system or platform has no locks."""

    def unsupported(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    def flock_of_nfs(descriptor: int, how: int) -> None:
        if not fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_RDWR:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(descriptor, how)

    flock = fcntl.flock
    if request.param == "flock of NFS":
        monkeypatch.setattr(locks.fcntl, "flock", flock_of_nfs)
    if request.param == "no flock":
        monkeypatch.setattr(locks.fcntl, "flock", unsupported)
    if request.param == "no fcntl":
        monkeypatch.setattr(locks, "fcntl", None)
    return str(request.param)


@pytest.mark.filterwarnings("ignore:.*this file system has no locks")
def test_second_process_is_refused_with_the_owners_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.lock"
    with FileLock(path, refusal):
        with pytest.raises(
            ValueError, match=rf"held by process {os.getpid()} on {re.escape(socket.gethostname())} \(.*, since \d"
        ):
            FileLock(path, refusal)
        assert json.loads(path.read_text())["pid"] == os.getpid()  # the refused attempt has not changed it
    assert not path.exists()
    FileLock(path, refusal).release()


@pytest.mark.parametrize("forks", ["forks", "alone"])
def test_lock_of_a_killed_process_is_released_even_if_children_live(tmp_path: Path, forks: str) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path), forks]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(
            ValueError, match=rf"{re.escape(str(tmp_path))}: in use by process {other.pid} on .* start a new run"
        ):
            lock_run(tmp_path)
        other.kill()
        other.wait()
        assert (tmp_path / "run.lock").exists()
        with lock_run(tmp_path):
            pass


def owned_by(path: Path, *, host: str, pid: int) -> None:
    path.write_text(json.dumps({"host": host, "pid": pid, "user": "ann", "since": "2026-01-02 03:04:05"}))


@pytest.mark.filterwarnings("ignore:.*this file system has no locks")
@pytest.mark.parametrize("kind", ["no flock", "no fcntl"], indirect=True)
def test_without_kernel_locks_only_locks_of_dead_local_processes_are_taken_over(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.lock"
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    owned_by(path, host=socket.gethostname(), pid=ended.pid)
    FileLock(path, refusal).release()
    for content in ("elsewhere", "alive", "junk"):
        if content == "junk":
            path.write_text("{")
        else:
            owned_by(path, host="elsewhere" if content == "elsewhere" else socket.gethostname(), pid=os.getppid())
        with pytest.raises(ValueError, match=rf"held by .* If that process is gone, remove {re.escape(str(path))}\."):
            FileLock(path, refusal)


def test_lock_removed_by_its_owner_in_the_meantime_is_acquired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, lock, calls = tmp_path / "a.lock", locks.fcntl.flock, []

    def removed_first(descriptor: int, how: int) -> None:
        if not calls:
            path.unlink()  # between our opening and our locking
        calls.append(how)
        lock(descriptor, how)

    monkeypatch.setattr(locks.fcntl, "flock", removed_first)
    with FileLock(path, refusal):
        assert len(calls) == 2
        with pytest.raises(ValueError, match="held by"):
            FileLock(path, refusal)


def test_a_folder_that_cannot_be_written_to_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "run.lock").mkdir()
    with pytest.raises(ValueError, match=rf"{re.escape(str(tmp_path))}: cannot write there \(Is a directory\)"):
        lock_run(tmp_path)
