"""Finds the data files of a source: one file, or those in a folder. Only regular files are accepted."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from data_modules.errors import UserError
from data_modules.wording import nearest_path

SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".parquet", ".txt")
"""Extensions of data files."""

_SPECIAL = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}

_LISTED = 5
"""How many skipped files are named."""


def data_files(source: str) -> list[Path]:
    """List the data files of a source, sorted. Folders are searched recursively; hidden files are skipped.

    Raises:
        FileNotFoundError: If the source does not exist.
        UserError: If a folder contains no data file, or a file has an unknown type or is not a regular file.
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
        raise UserError(f"{path}: no data files in this folder; expected {', '.join(SUFFIXES)}.")
    for file in files:
        _check_regular(file)
    return files


def skipped_files(source: str) -> list[str]:
    """One line naming the files of a folder that are not read: unknown types, hidden files and folders."""
    path = Path(source)
    if not path.is_dir():
        return []
    names = sorted(str(file.relative_to(path)) for file, is_data in _walk(path) if not is_data)
    if not names:
        return []
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return [f"{path}: skipped {', '.join(names[:_LISTED])}{more} (hidden, or not {', '.join(SUFFIXES)})"]


def missing(source: str) -> str:
    """The message for a source that does not exist."""
    path = Path(source)
    if path.is_symlink():
        return f"{source}: {_broken_link(path)}."
    advice = nearest_path(path) or f"check the path (relative to {Path.cwd()})."
    return f"{source}: no such file or folder; {advice}"


def _walk(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Every file below a folder, and whether it is a data file. Hidden folders are listed but not entered."""
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
            f"{folder}: a symbolic link to a folder that is already read ({known}), so its records would be read "
            "twice; remove one of the two."
        )


def _check_regular(path: Path) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(f"{str(path)!a}: the file name is not UTF-8; rename the file.") from None
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, OSError) as error:
        if path.is_symlink() and error.errno in (errno.ENOENT, errno.ELOOP):
            raise UserError(f"{path}: {_broken_link(path)}.") from None
        raise
    if not stat.S_ISREG(mode):
        what = _SPECIAL.get(stat.S_IFMT(mode), "not a regular file")
        raise UserError(f"{path}: {what}, which may never end and cannot be read twice; write the records to a file.")


def _broken_link(path: Path) -> str:
    try:
        path.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # for a loop, depending on Python's version
        if not isinstance(error, FileNotFoundError):
            return "a symbolic link that points back to itself; link it to a file"
    return f"a symbolic link to {os.readlink(path)}, which does not exist; fix or remove it"


def _raise(error: OSError) -> None:
    raise error
