"""Files that are written whole or not at all, JSON that every reader takes, YAML with unique keys, digests."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_modules.encoding.model_names import nearest_path
from data_modules.errors import UserError
from data_modules.reasons import reason_of
from data_modules.records.record import kind_of
from lit_sft.printable import printable
from lit_sft.yaml_loader import load_yaml

_LONGEST_SLUG = 120

# JSON itself escapes the controls below 0x20. Of these, some reach a terminal or break a line when the file is printed,
# and lone surrogates cannot be written as UTF-8 at all.
_ESCAPED = re.compile(r"[\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def read_json(path: Path, *, advice: str = "remove the file, and it will be made again") -> dict[str, Any] | None:
    """The JSON object that a file holds; None if there is no file.

    Args:
        path: The file.
        advice: What to do about a damaged one.

    Raises:
        UserError: If it holds something else.
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
    """Write a file, whole or not at all, and only if its content changes."""
    content = _json(value, indent=1, default=str).encode()
    if not path.is_file() or path.read_bytes() != content:
        _write_whole(path, [content])


def write_lines(path: Path, rows: Iterable[Any]) -> None:
    """Write JSON lines, all of them or none."""
    _write_whole(path, (json_line(row).encode() for row in rows))


@dataclass(frozen=True)
class Rows:
    """What a file of JSON lines holds.

    Attributes:
        rows: Its objects, in order.
        damaged: The lines that hold none, each with its place: one that a killed process left half written, say.
    """

    rows: list[dict[str, Any]]
    damaged: list[str]


def read_rows(path: Path) -> Rows:
    """Read a file of JSON lines; lines that cannot be read do not affect the others.

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


def append_line(path: Path, value: Any, *, sync: bool = False) -> None:
    """Append a line of JSON, on a line of its own also where a killed process left half a line.

    Args:
        path: The file.
        value: What to write.
        sync: Whether to wait until the disk has it.
    """
    with path.open("ab+") as stream:
        is_whole = True
        if stream.tell():
            stream.seek(-1, os.SEEK_END)
            is_whole = stream.read(1) == b"\n"
        stream.write((b"" if is_whole else b"\n") + json_line(value).encode())
        if sync:
            stream.flush()
            os.fsync(stream.fileno())


def said(error: BaseException) -> str:
    """An error in a line: a user's mistake by its message, others with their kind."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    line = next(iter(str(error).splitlines()), "")
    return line if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: {line}"


def short_reason(error: BaseException) -> str:
    """Why something could not be read, in a few words on one line."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return reason_of(error, 200)


def json_line(value: Any) -> str:
    """A value as one line of JSON, line break included; NaN and infinity become null."""
    return _json(value) + "\n"


def _json(value: Any, **options: Any) -> str:
    text = json.dumps(with_nulls(value), ensure_ascii=False, allow_nan=False, **options)
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _write_whole(path: Path, parts: Iterable[bytes]) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")  # processes may write the same file side by side
    try:
        with partial.open("wb") as stream:
            stream.writelines(parts)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def replaced_folder(folder: Path, *, is_written: Callable[[str], bool]) -> Iterator[Path]:
    """An empty folder to write to, which takes the place of another one when it is complete.

    Args:
        folder: To replace; made if it is not there.
        is_written: Whether a file of this name in the folder before is of the same kind as what is written. Such files
            go with the folder; anything else is somebody's own and stays.

    Raises:
        UserError: If the folder is a file.
    """
    folder = folder.absolute()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: a file; expected a folder, or a name that is not taken.")
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
    """With null for metrics that are infinite or undefined, which JSON has no word for."""
    if isinstance(value, dict):
        return {key: with_nulls(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [with_nulls(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_yaml(path: str | Path, *, advice: str, usual: Path | None = None) -> Any:
    """What a YAML file holds.

    Args:
        path: The file.
        advice: What to do if it cannot be read.
        usual: The folder where such files usually are, to look for one of a similar name.

    Raises:
        UserError: If it cannot be read, is not YAML, or has a key twice.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        close = nearest_path(Path(path), *([usual] if usual else []))
        raise UserError(f"{path}: no such file; {close or f'check the path. {advice}'}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path. {advice}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error}). {advice}") from None
    return load_yaml(text, str(path))[0]


def slug(name: str, empty: str) -> str:
    """A name as that of a folder or file.

    Args:
        name: Any text.
        empty: What to call it if nothing of the name can be kept.
    """
    kept = re.sub(r"[^\w.=+-]+", "_", name).strip("_.") or empty
    # in bytes, for file systems; a digest tells long names apart
    return kept if len(kept.encode()) <= _LONGEST_SLUG else f"{kept[: _LONGEST_SLUG // 4]}-{digest(name)}"


def is_plain_name(name: str) -> bool:
    """Whether a name can be that of a file, and printed as it is."""
    return Path(name).name == name and name not in ("", "..") and printable(name) == name


def digest(value: Any) -> str:
    """Of any JSON-like value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
