"""The data files of a source: one file, or those of a folder. Anything that is not a regular file is refused."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from data_modules.errors import UserError

SUFFIXES = (".json", ".jsonl", ".csv", ".parquet", ".txt")
"""Types of files that hold records."""

_SPECIAL = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}

_LISTED = 5
"""Skipped files that are named."""


def data_files(source: str) -> list[Path]:
    """The data files of a file or folder, sorted; of a folder, those in subfolders too, but no hidden ones.

    Raises:
        FileNotFoundError: If there is nothing of that name.
        UserError: If a folder holds no data file, or a file is of an unknown type or not a regular file.
    """
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(missing(source))
    if not path.is_dir():
        _check_regular(path)
        if path.suffix.lower() not in SUFFIXES:
            raise UserError(f"{path}: unknown file type '{path.suffix}'; expected {', '.join(SUFFIXES)}.")
        return [path]
    files = sorted(file for file, is_data in _walk(path) if is_data)
    if not files:
        raise UserError(f"{path}: no data file in this folder; expected {', '.join(SUFFIXES)}.")
    for file in files:
        _check_regular(file)
    return files


def skipped_files(source: str) -> list[str]:
    """A line that names what a folder holds beside its data files: unknown types, hidden files and folders."""
    path = Path(source)
    if not path.is_dir():
        return []
    names = sorted(str(file.relative_to(path)) for file, is_data in _walk(path) if not is_data)
    if not names:
        return []
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return [f"{path}: skipped {', '.join(names[:_LISTED])}{more} (hidden, or not {', '.join(SUFFIXES)})"]


def missing(source: str) -> str:
    """What to say of a source that does not exist."""
    path = Path(source)
    if path.is_symlink():
        return f"{source}: {_broken_link(path)}."
    return f"{source}: no such file or folder; check the path (relative to {Path.cwd()})."


def _walk(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Every file below a folder, and whether it is a data file; of what is hidden, only the topmost name."""
    visited: dict[tuple[int, int], Path] = {}
    for place, folders, names in os.walk(folder, followlinks=True, onerror=_raise):
        _check_first_visit(Path(place), visited)
        for name in [*folders, *names]:
            if name.startswith("."):
                yield Path(place, name), False
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith("."):
                yield Path(place, name), Path(name).suffix.lower() in SUFFIXES


def _check_first_visit(folder: Path, visited: dict[tuple[int, int], Path]) -> None:
    found = folder.stat()
    known = visited.setdefault((found.st_dev, found.st_ino), folder)
    if known != folder:
        raise UserError(
            f"{folder}: a symbolic link leads to a folder that is read already ({known}); remove one of the two, "
            "or its records would be read twice."
        )


def _check_regular(path: Path) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(f"{str(path)!a}: the name of this file is not UTF-8; rename it.") from None
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, OSError) as error:
        if path.is_symlink() and error.errno in (errno.ENOENT, errno.ELOOP):
            raise UserError(f"{path}: {_broken_link(path)}.") from None
        raise
    if not stat.S_ISREG(mode):
        what = _SPECIAL.get(stat.S_IFMT(mode), "not a regular file")
        raise UserError(f"{path}: {what}, which cannot be read twice or may never end; write the records to a file.")


def _broken_link(path: Path) -> str:
    try:
        path.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # pathlib has raised either for a loop
        if not isinstance(error, FileNotFoundError):
            return "a symbolic link that leads back to itself; link it to a file"
    return f"a symbolic link to {os.readlink(path)}, which does not exist; correct or remove it"


def _raise(error: OSError) -> None:
    raise error
