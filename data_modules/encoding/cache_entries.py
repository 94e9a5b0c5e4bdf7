"""Folders of encoded data: written whole, verified when they are opened, replaced when they are damaged."""

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
from data_modules.errors import UserError

_DIGESTS = "digests.json"
"""In every folder: the SHA-256 of each of its other files."""

_LEFTOVER = re.compile(r".+\.(partial|damaged)-[0-9a-f]{32}")
_ABANDONED_AFTER = 24 * 3600.0
"""Seconds without a file being written, after which a folder must be a killed process's."""


def is_whole(folder: Path, names: list[str]) -> bool:
    """Whether a folder holds these files as they were written; a warning says so if it held them once.

    Args:
        folder: May not exist. One that an earlier version wrote, without digests, counts as missing.
        names: All of its files but the list of digests.
    """
    if not (folder / _DIGESTS).exists():
        return False
    if _is_intact(folder, names):
        return True
    warnings.warn(f"{folder}: the cached data is damaged; the records are encoded again.", stacklevel=2)
    return False


@contextlib.contextmanager
def new_folder(folder: Path, names: list[str]) -> Iterator[Path]:
    """A folder to fill, which takes the given name when it is complete; whoever is first keeps the name.

    It has a name of its own until then, so that several processes, on several machines, may make the same data at once.

    Args:
        folder: Its final name. What is there and not whole is replaced.
        names: The files that will be in it.

    Raises:
        UserError: If nothing can be written there.
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
    """Delete what killed processes left unfinished; what others are writing now stays."""
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
    """Give a folder its name; what has the name now is moved aside first, since it may be in use."""
    aside = folder.with_name(f"{folder.name}.damaged-{uuid4().hex}")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(aside)
    try:
        partial.rename(folder)
    except OSError:
        if not os.path.lexists(folder):  # else another process was faster
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
