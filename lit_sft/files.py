"""Reads and writes files: atomic writes, standard JSON, strict YAML, digests, file names."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from data_modules.errors import UserError
from data_modules.wording import kind_of, nearest_path, reason_of
from lit_sft.printable import printable
from lit_sft.shipped import advice_on
from lit_sft.yaml_loader import load_yaml

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_LONGEST_SLUG = 120

_LONGEST_LINE = 2**26
"""Bytes of a last line that are read to see whether it is whole."""

# JSON itself escapes controls below 0x20. These too can steer a terminal or break a line when the file is printed, and
# lone surrogates cannot be encoded as UTF-8.
_ESCAPED = re.compile(r"[\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def read_json(path: Path, *, advice: str = "remove the file; it will be written again") -> dict[str, Any] | None:
    """Read a JSON object from a file; None if the file does not exist.

    Args:
        path: The file.
        advice: What to do about a damaged file.

    Raises:
        UserError: If it holds anything but a JSON object.
        OSError: If it cannot be read.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({short_reason(error)}); {advice}.") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: found {kind_of(found)}; expected an object with named fields.")
    return found


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically, and only if its content changes."""
    content = _json(value, indent=1, default=str).encode()
    if not path.is_file() or path.read_bytes() != content:
        _write_whole(path, [content])


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically; line breaks stay as they are. A device such as /dev/stdout is written to."""
    _write_whole(path, [text.encode()])


def write_lines(path: Path, rows: Iterable[Any]) -> None:
    """Write a file of JSON lines atomically."""
    _write_whole(path, (json_line(row).encode() for row in rows))


@dataclass(frozen=True)
class Rows:
    """The content of a file of JSON lines.

    Attributes:
        rows: Its objects, in order.
        damaged: A message for each unreadable line, such as one left half-written by a killed process.
    """

    rows: list[dict[str, Any]]
    damaged: list[str]


def read_rows(path: Path) -> Rows:
    """Read a file of JSON lines, skipping damaged lines.

    Raises:
        OSError: If the file cannot be read at all.
    """
    found = Rows([], [])
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            found.damaged.append(f"{path}:{number}: not valid JSON ({short_reason(error)}).")
            continue
        if isinstance(row, dict):
            found.rows.append(row)
        else:
            found.damaged.append(f"{path}:{number}: found {kind_of(row)}; expected an object with named fields.")
    return found


def append_line(path: Path, value: Any, *, sync: bool = False, removes_half_line: bool = False) -> None:
    """Append a line of JSON. If a killed process left half a line, start a new one.

    Args:
        path: The file.
        value: What to write.
        sync: Whether to wait until it is on the disk.
        removes_half_line: Remove such a half line instead.
    """
    append_lines(path, [value], sync=sync, removes_half_line=removes_half_line)


def append_lines(path: Path, values: Iterable[Any], *, sync: bool = False, removes_half_line: bool = False) -> None:
    """Append lines of JSON, all at once. See `append_line` for the arguments."""
    lines = b"".join(json_line(value).encode() for value in values)
    with path.open("ab+") as stream:
        _lock(stream)  # else the half line of a process that is just writing would be taken for that of a killed one
        _end_line(stream, removes_half_line)
        stream.write(lines)
        if sync:
            stream.flush()
            os.fsync(stream.fileno())


def _lock(stream: BinaryIO) -> None:
    """Wait for other processes that append to the file, until it is closed; not on file systems without locks."""
    if fcntl is not None:
        with suppress(OSError):
            fcntl.flock(stream, fcntl.LOCK_EX)


def _end_line(stream: BinaryIO, removes_half: bool) -> None:
    """End the last line if it has no line break, or remove it if it is not JSON."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - 1))
    if stream.read(1) in (b"", b"\n"):
        return
    stream.seek(max(0, size - _LONGEST_LINE))
    line = stream.read().rpartition(b"\n")[2]
    if removes_half and not _is_json(line):
        stream.truncate(size - len(line))
    else:
        stream.write(b"\n")


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return False
    return True


def error_line(error: BaseException) -> str:
    """An error in one line: user and system errors by their message alone, others with their type."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    line = next(iter(str(error).splitlines()), "")
    return line if isinstance(error, (UserError, OSError)) else f"{type(error).__name__}: {line}"


def short_reason(error: BaseException) -> str:
    """A few words on why something could not be read."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return reason_of(error, 200)


def json_line(value: Any) -> str:
    """Encode a value as one line of JSON, with a line break; NaN and infinity become null."""
    return _json(value) + "\n"


def _json(value: Any, **options: Any) -> str:
    text = json.dumps(with_nulls(value), ensure_ascii=False, allow_nan=False, **options)
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _write_whole(path: Path, parts: Iterable[bytes]) -> None:
    if path.exists() and not path.is_file():  # a device, which must not be replaced by a file
        with path.open("wb") as stream:
            stream.writelines(parts)
        return
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")  # several processes may write the same file
    try:
        with partial.open("wb") as stream:
            stream.writelines(parts)
        partial.replace(path)
    except BaseException as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename == str(partial):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


@contextmanager
def replaced_folder(folder: Path, *, is_written: Callable[[str], bool]) -> Iterator[Path]:
    """Give an empty folder to write to, which replaces another one when the block is complete.

    Args:
        folder: The folder to replace; created if missing.
        is_written: Whether a file name is one that the block may write. Such files in the old folder are deleted; all
            others belong to the user and are kept.

    Raises:
        UserError: If the folder is a file.
    """
    folder = folder.absolute()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: this is a file; expected a folder, or a name that is free.")
    aside, before = (folder.with_name(f".{folder.name}.{what}") for what in ("partial", "before"))
    if before.exists() and not folder.exists():
        before.rename(folder)  # a process was killed between the two renames below
    for leftover in (aside, before):
        shutil.rmtree(leftover, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    if folder.exists():
        _keep_others(folder, aside, is_written)
        folder.rename(before)
    aside.rename(folder)
    shutil.rmtree(before, ignore_errors=True)


def _keep_others(before: Path, after: Path, is_written: Callable[[str], bool]) -> None:
    for path in before.iterdir():
        if not is_written(path.name) and not (after / path.name).exists():
            path.rename(after / path.name)


def with_nulls(value: Any) -> Any:
    """Replace infinite and undefined numbers, which JSON cannot hold, by null."""
    if isinstance(value, dict):
        return {key: with_nulls(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [with_nulls(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_yaml(path: str | Path, *, advice: str, usual: Path | None = None) -> Any:
    """Read a YAML file.

    Args:
        path: The file.
        advice: What to do if it cannot be read.
        usual: The usual folder of such files, searched for similar names.

    Raises:
        UserError: If it cannot be read, is not YAML, or has duplicate keys.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        close = advice_on(Path(path)) or nearest_path(Path(path), *([usual] if usual else []))
        raise UserError(f"{path}: no such file; {close or f'check the path. {advice}'}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path. {advice}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error}). {advice}") from None
    return load_yaml(text, str(path))[0]


def slug(name: str, empty: str) -> str:
    """Turn any text into the name of a file or folder.

    Args:
        name: Any text.
        empty: The name to use if no character can be kept.
    """
    kept = re.sub(r"[^\w.=+-]+", "_", name).strip("_.") or empty
    # file systems limit bytes; a digest tells long names apart
    return kept if len(kept.encode()) <= _LONGEST_SLUG else f"{kept[: _LONGEST_SLUG // 4]}-{digest(name)}"


def is_file_name(name: str) -> bool:
    """Whether a name is a plain file name, without any path."""
    return Path(name).name == name and name not in ("", "..") and "\0" not in name


def is_plain_name(name: str) -> bool:
    """Whether a name is a file name and safe to print."""
    return is_file_name(name) and printable(name) == name


def digest(value: Any) -> str:
    """A short digest of any JSON-like value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
