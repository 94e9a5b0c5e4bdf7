"""A digest of the whole file inside each checkpoint: torch stores checksums but does not verify them on loading.

A checkpoint is a zip archive, which may end in a comment that torch ignores. Ours holds the SHA-256 of the SHA-256s of
all 64-MiB blocks before it, so that threads can share the work:

    | weights, optimiser state, loops ... | end record (22 bytes) | lit_sft sha256/64M 0c4f... |
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from data_modules.digests import Stamp, is_settled, stamp
from data_modules.errors import UserError

_MARK = b"lit_sft sha256/64M "
_COMMENT_BYTES = len(_MARK) + 64
_END_BYTES = 22
_BLOCK_BYTES = 2**26
_READ_BYTES = 2**20
_MOST_THREADS = 8

_verified: set[tuple[str, Stamp]] = set()


def add_digest(path: Path) -> None:
    """Append the digest to a checkpoint that torch has just written.

    Raises:
        RuntimeError: If it is not a zip archive, or already has a comment.
    """
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _END_BYTES))
        end = file.read()
        if not end.startswith(b"PK\x05\x06") or end[-2:] != b"\0\0":
            raise RuntimeError("torch.save wrote something other than a zip archive")
        file.seek(size - 2)
        file.write(_COMMENT_BYTES.to_bytes(2, "little"))  # length of the comment; covered by the digest
        file.flush()
        file.seek(size)
        file.write(_MARK + _digest(path, size))


def written_digest(path: Path) -> str | None:
    """The digest stored in a checkpoint, unverified; None if it has none."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END) - _COMMENT_BYTES
        file.seek(max(0, size))
        mark, digest = file.read(len(_MARK)), file.read()
    return digest.decode("ascii", "replace") if mark == _MARK else None


def is_intact(path: Path) -> bool:
    """Whether a checkpoint is unchanged, by its digest or, if it has none, by the zip checksums.

    An unchanged file is verified only once per process.
    """
    key = (os.path.abspath(path), stamp(path))
    if key in _verified:
        return True
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END) - _COMMENT_BYTES
        file.seek(max(0, size))
        mark, expected = file.read(len(_MARK)), file.read()
        good = _digest(path, size) == expected if mark == _MARK else _has_good_checksums(file)
    if good and is_settled(key[1]):
        _verified.add(key)
    return good


def check_intact(path: Path, advice: str = "") -> None:
    """Reject a checkpoint that has changed since it was written.

    Args:
        path: A checkpoint.
        advice: Appended to the message.

    Raises:
        UserError: If it is damaged.
    """
    if not is_intact(path):
        raise UserError(f"{path}: damaged, truncated or not a checkpoint: its digest does not match{advice}.")


def _digest(path: Path, size: int) -> bytes:
    """Digest of the first `size` bytes, in hexadecimal; takes 0.6 core-seconds per GB."""
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        blocks = pool.map(lambda start: _block_digest(path, start, size), range(0, size, _BLOCK_BYTES))
        return hashlib.sha256(b"".join(blocks)).hexdigest().encode()


def _block_digest(path: Path, start: int, end: int) -> bytes:
    digest, left = hashlib.sha256(), min(_BLOCK_BYTES, end - start)
    with path.open("rb") as file:
        file.seek(start)
        while left > 0 and (piece := file.read(min(left, _READ_BYTES))):
            digest.update(piece)
            left -= len(piece)
    return digest.digest()


def _has_good_checksums(file: BinaryIO) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            # torch writes no comment, so any other one is a damaged digest of ours
            return not archive.comment and archive.testzip() is None
    except Exception:
        # a damaged archive can raise any of several exception types
        return False
