"""A folder of shards: written by one process at a time, complete once it has a manifest, verified when opened."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_modules.digests import Stamp, file_digests, is_settled, stamp
from data_modules.encoding.shard_writer import write_whole
from data_modules.encoding.token_shards import MANIFEST
from data_modules.errors import UserError, UserNotice

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
_PAUSE = 0.5

_ALWAYS_READ = 2**30
"""Folders of up to this many bytes are read and digested at every opening; larger ones only if a file has changed."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for writing. Waits for the process that holds it; the lock of a killed process is released.

    Args:
        folder: May not exist yet; the lock is a file beside it.

    Raises:
        UserError: If the cache is not writable, or its file system has no locks.
    """
    path = folder.with_name(f"{folder.name}.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = path.open("a")
    except OSError as error:
        raise UserError(
            f"--data.cache_dir {folder.parent}: cannot write there ({error.strerror}); choose another folder."
        ) from None
    with stream:
        _wait(stream.fileno(), folder)
        yield


def _wait(descriptor: int, folder: Path) -> None:
    if fcntl is None:
        return
    is_announced = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in _HELD:
                raise UserError(
                    f"--data.cache_dir {folder.parent}: this file system has no locks ({error.strerror}), so two runs "
                    "could write the same file; choose a folder on another one."
                ) from None
        if not is_announced:
            print(f"{folder}: another process is encoding these texts; waiting for it", file=sys.stderr, flush=True)
            is_announced = True
        time.sleep(_PAUSE)


def is_complete(folder: Path) -> bool:
    """Whether a folder is complete and undamaged. Warns if it is damaged.

    Args:
        folder: May not exist.
    """
    path = folder / MANIFEST
    if not path.exists():
        return False
    try:
        files = json.loads(path.read_bytes())["files"]
        if _is_intact(folder, files):
            return True
    except (OSError, ValueError, KeyError, TypeError):
        pass
    warnings.warn(f"{folder}: the encoded texts are damaged; encoding them again.", UserNotice, stacklevel=2)
    return False


def _is_intact(folder: Path, files: dict[str, dict[str, Any]]) -> bool:
    stamps = {name: stamp(folder / name) for name in files}
    if any(stamps[name][0] != entry["bytes"] for name, entry in files.items()):
        return False
    is_small = sum(entry["bytes"] for entry in files.values()) <= _ALWAYS_READ
    if not is_small and _verified(folder) == {name: list(each) for name, each in stamps.items()}:
        return True
    digests = file_digests([folder / name for name in files])
    if digests != [entry["sha256"] for entry in files.values()]:
        return False
    if not is_small:
        _remember(folder, stamps)
    return True


def _verified(folder: Path) -> Any:
    """The stamps of the files when they were last read completely; None if they never were."""
    try:
        return json.loads(_stamps_file(folder).read_bytes())
    except (OSError, ValueError):
        return None


def _remember(folder: Path, stamps: dict[str, Stamp]) -> None:
    if all(is_settled(each) for each in stamps.values()):
        with contextlib.suppress(OSError):  # if the cache is not writable, it is read completely every time
            write_whole(_stamps_file(folder), json.dumps(stamps))


def _stamps_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.verified")


def finish(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest, then remove the files that only resuming needs.

    Args:
        folder: The folder.
        manifest: With the size and SHA-256 of all other files by name, under `files`.
    """
    write_whole(folder / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False))
    remove_leftovers(folder)


def leftovers(folder: Path) -> list[Path]:
    """Files that the manifest does not list: a process is removing them, or was killed before it could."""
    listed = json.loads((folder / MANIFEST).read_bytes())["files"]
    return [folder / name for name in os.listdir(folder) if name not in listed and name != MANIFEST]


def remove_leftovers(folder: Path) -> None:
    """Remove files that the manifest does not list."""
    for path in leftovers(folder):
        path.unlink()


def clear(folder: Path) -> None:
    """Remove all files of a damaged folder. The manifest goes first, so that the folder never looks complete."""
    for path in [folder / MANIFEST, *folder.iterdir()]:
        path.unlink(missing_ok=True)
    shutil.rmtree(folder)
    folder.mkdir()
