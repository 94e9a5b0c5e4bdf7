"""A digest inside each checkpoint, over the whole file: torch stores checksums but does not verify them on loading.

A checkpoint is a zip archive, and a zip archive may end in a comment, which torch ignores. The comment holds the
SHA-256 of all bytes before it:

    | weights, optimiser state, loops ... | end record (22 bytes) | lit_sft sha256 0c4f... |
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path
from typing import BinaryIO

from data_modules.digests import Stamp, is_settled, stamp

_MARK = b"lit_sft sha256 "
_COMMENT_BYTES = len(_MARK) + 64
_END_BYTES = 22
_BLOCK_BYTES = 2**20

_verified: set[tuple[str, Stamp]] = set()


def add_digest(file: BinaryIO) -> None:
    """Append its digest to a checkpoint that torch has just written.

    Args:
        file: Open for reading and writing.

    Raises:
        RuntimeError: If it is not a zip archive without a comment.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END_BYTES))
    end = file.read()
    if not end.startswith(b"PK\x05\x06") or end[-2:] != b"\0\0":
        raise RuntimeError("torch.save wrote something other than a zip archive")
    file.seek(size - 2)
    file.write(_COMMENT_BYTES.to_bytes(2, "little"))  # the length of the comment, which the digest covers as well
    digest = _digest(file, size)
    file.seek(size)
    file.write(_MARK + digest)


def is_intact(path: Path) -> bool:
    """Whether a checkpoint holds what was written, by its digest, or by the checksums of zip where it has none.

    An unchanged file is read once per process.
    """
    key = (os.path.abspath(path), stamp(path))
    if key in _verified:
        return True
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END) - _COMMENT_BYTES
        file.seek(max(0, size))
        mark, expected = file.read(len(_MARK)), file.read()
        good = _digest(file, size) == expected if mark == _MARK else _has_good_checksums(file)
    if good and is_settled(key[1]):
        _verified.add(key)
    return good


def check_intact(path: Path, advice: str = "") -> None:
    """Refuse a checkpoint that has changed since it was written.

    Args:
        path: A checkpoint.
        advice: Appended to the message.

    Raises:
        ValueError: If it is damaged.
    """
    if not is_intact(path):
        raise ValueError(f"{path}: damaged, cut short or not a checkpoint: its digest does not match{advice}.")


def _digest(file: BinaryIO, size: int) -> bytes:
    """SHA-256 of the first `size` bytes, in hexadecimal."""
    file.seek(0)
    digest = hashlib.sha256()
    block = memoryview(bytearray(_BLOCK_BYTES))
    while size > 0 and (count := file.readinto(block[: min(size, _BLOCK_BYTES)])):  # type: ignore[attr-defined]
        digest.update(block[:count])
        size -= count
    return digest.hexdigest().encode()


def _has_good_checksums(file: BinaryIO) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            # torch writes no comment of its own: one that is not ours was ours
            return not archive.comment and archive.testzip() is None
    except Exception:
        # a broken archive ends in any of several exception types
        return False
