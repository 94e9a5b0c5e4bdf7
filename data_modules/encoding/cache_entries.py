"""Folders in the cache: written atomically, verified when opened, replaced when damaged."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from data_modules.digests import file_digests
from data_modules.errors import UserError, UserNotice

_DIGESTS = "digests.json"
"""The file in every folder with the SHA-256 of each other file."""

_LEFTOVER = re.compile(r".+\.(partial|damaged)-[0-9a-f]{32}")
_ABANDONED_AFTER = 24 * 3600.0
"""After this many seconds without a write, an unfinished folder is assumed to be a leftover of a killed process."""


def is_whole(folder: Path, names: list[str]) -> bool:
    """Whether a folder is complete and undamaged. Warns if it is damaged.

    Args:
        folder: May not exist. A folder without digests, from an earlier version, counts as missing.
        names: All of its files except the list of digests.
    """
    if not (folder / _DIGESTS).exists():
        return False
    if _is_intact(folder, names):
        return True
    warnings.warn(f"{folder}: the cached data is damaged; encoding the records again.", UserNotice, stacklevel=2)
    return False


@contextlib.contextmanager
def new_folder(folder: Path, names: list[str]) -> Iterator[Path]:
    """Fill a temporary folder, then rename it. The first process to finish keeps the name.

    Until then it has a unique name, so that several processes on several machines can encode the same data at once.

    Args:
        folder: The final name. A damaged folder of that name is replaced.
        names: The files to be written into it.

    Raises:
        UserError: If the cache is not writable.
    """
    _remove_leftovers(folder.parent)
    partial = folder.with_name(f"{folder.name}.partial-{uuid4().hex}")
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise UserError(
            f"--data.cache_dir {folder.parent}: cannot write there ({error.strerror}); choose another folder."
        ) from None
    try:
        yield partial
        digests = dict(zip(names, file_digests([partial / name for name in names]), strict=True))
        (partial / _DIGESTS).write_text(json.dumps(digests, indent=1), encoding="utf-8")
        if not _is_intact(folder, names):
            _replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _remove_leftovers(cache: Path) -> None:
    """Delete the unfinished folders of killed processes, but not those still being written."""
    for path in cache.glob("*-*"):
        if not _LEFTOVER.fullmatch(path.name):
            continue
        with contextlib.suppress(OSError):  # another process may be deleting it too
            written = max(part.stat().st_mtime for part in (path, *path.iterdir()))
            if time.time() - written > _ABANDONED_AFTER:
                shutil.rmtree(path, ignore_errors=True)


def _is_intact(folder: Path, names: list[str]) -> bool:
    try:
        digests = json.loads((folder / _DIGESTS).read_bytes())
        return bool(digests == dict(zip(names, file_digests([folder / name for name in names]), strict=True)))
    except (OSError, ValueError):
        return False


def _replace(partial: Path, folder: Path) -> None:
    """Rename a folder to its final name. An existing folder is moved aside first, since it may be in use."""
    aside = folder.with_name(f"{folder.name}.damaged-{uuid4().hex}")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(aside)
    try:
        partial.rename(folder)
    except OSError:
        if not os.path.lexists(folder):  # otherwise another process was faster
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
