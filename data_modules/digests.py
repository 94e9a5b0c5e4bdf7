"""SHA-256 digests of files, and a folder's list of them in the format of `sha256sum`."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from data_modules.errors import UserError

DIGESTS = "lit_sft.sha256"
"""The list in a folder: one line `<digest>  <file name>` per file."""

Stamp = tuple[int, int, int, int]
"""Size, mtime, ctime and inode of a file. Unlike mtime, ctime cannot be set."""

_computed: dict[tuple[str, Stamp], str] = {}

_SETTLED_SECONDS = 2.0
"""Two changes within one tick of the file system's clock leave the same stamp, so newer files are always re-read."""


def file_digest(path: Path) -> str:
    """The SHA-256 of a file. An unchanged file is read once per process.

    Args:
        path: A file. Takes 0.6 seconds per GB on processors with SHA instructions, up to 3 on others.
    """
    seen = stamp(path)
    key = (os.path.abspath(path), seen)
    if key in _computed:
        return _computed[key]
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if is_settled(seen):
        _computed[key] = digest
    return digest


def digest_of(value: Any) -> str:
    """A short digest of a plain JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def stamp(path: Path) -> Stamp:
    """The stamp of a file, which changes whenever the file is written."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def is_settled(seen: Stamp) -> bool:
    """Whether the file is old enough for its stamp to be trusted."""
    return time.time() - max(seen[1:3]) / 1e9 > _SETTLED_SECONDS


def file_digests(paths: list[Path]) -> list[str]:
    """The digests of several files, computed in threads."""
    with ThreadPoolExecutor(max_workers=4) as pool:
        return list(pool.map(file_digest, paths))


def write_digests(folder: Path) -> None:
    """Write the list of a folder's digests. README.md is left out because people edit it."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name not in (DIGESTS, "README.md"))
    lines = [f"{digest}  {file.name}\n" for digest, file in zip(file_digests(files), files, strict=True)]
    (folder / DIGESTS).write_text("".join(lines), encoding="utf-8")


def check_digests(folder: Path, *, weights: bool = True) -> None:
    """Check the files of a folder against its list of digests. A folder without a list passes.

    Args:
        folder: A model, adapter or tokenizer.
        weights: Whether to check the safetensors files too.

    Raises:
        UserError: If a file is missing or has changed since the folder was exported.
    """
    listed = {
        name: digest for name, digest in listed_digests(folder).items() if weights or not name.endswith(".safetensors")
    }
    for name in listed:
        if not (folder / name).is_file():
            raise UserError(
                f"{folder}: {name} is missing, but {DIGESTS} lists it. Export the model again; if you removed the file "
                f"on purpose, delete its line from {DIGESTS}."
            )
    found = file_digests([folder / name for name in listed])
    for (name, expected), digest in zip(listed.items(), found, strict=True):
        if digest != expected:
            raise UserError(
                f"{folder / name}: changed since it was exported (sha256 {digest[:12]}, expected {expected[:12]}). "
                f"Export the model again; if you edited the file on purpose, delete its line from {DIGESTS}."
            )


def listed_digests(folder: Path) -> dict[str, str]:
    """The digest of each listed file, by name; empty without a list.

    Raises:
        UserError: If the list is damaged.
    """
    path = folder / DIGESTS
    if not path.is_file():
        return {}
    listed: dict[str, str] = {}
    # splitlines would also split at control characters
    for number, line in enumerate(path.read_bytes().decode(errors="replace").rstrip("\n").split("\n"), start=1):
        found = re.fullmatch(r"([0-9a-f]{64})  ([^/\\]+)", line)
        if found is None or found[2] in listed:
            raise UserError(
                f"{path}:{number}: damaged; expected `<sha256>  <file name>`, each file once. Export the model again, "
                "or delete the list if you are sure that the other files are intact."
            )
        listed[found[2]] = found[1]
    return listed
