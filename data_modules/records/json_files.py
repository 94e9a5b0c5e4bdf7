"""Records from .json lists and from .jsonl files with one object per line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_modules.errors import UserError
from data_modules.records.record import Record, Reject
from data_modules.records.text_lines import USUAL, Reading, escaped_byte, not_utf8, read_lines
from data_modules.wording import kind_of

_SPACE = re.compile(r"[ \t\r\n]*")
_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+"|[\[{]|[\]}]', re.DOTALL)
_TOO_DEEP = "nested too deeply to be a record; expected a flat object."


class _DuplicateFieldError(UserError):
    """An object has a duplicate field."""


def read_jsonl(path: Path, reject: Reject, reading: Reading = USUAL) -> Iterator[Record]:
    """Read one object per line."""
    for number, line in read_lines(path, reject, reading):
        try:
            fields = json.loads(line, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            reject(f"{path}:{number}: {_fault(error)}")
        else:
            yield from _as_record(fields, f"{path}:{number}", reject)


def read_json(path: Path, reject: Reject, reading: Reading = USUAL) -> Iterator[Record]:
    """Read a JSON list of objects, one element at a time so that each keeps its line number.

    Raises:
        UserError: If the file is not a single list; record boundaries are then unknown.
    """
    text, is_whole = _decode(path)
    at, line, seen, number, before = _begin_list(text, path), 1, 0, 0, 0
    while at < len(text) and text[at] != "]":
        before, number = (line, number + 1) if number else (0, 1)
        line, seen = line + text.count("\n", seen, at), at
        # several records on one line are numbered
        origin = f"{path}:{line}" + (f" (record {number})" if line == before else "")
        fields, end = _decode_element(text, at, path, origin, reject)
        reading.on_bytes(len(text[at:end].encode("utf-8", "surrogateescape")))
        if not is_whole and escaped_byte(text[at:end]) is not None:
            reject(not_utf8(origin, text[at:end]))
        elif fields is not _REFUSED:
            yield from _as_record(fields, origin, reject)
        at = _next_element(text, end, path)
    _end_list(text, at, path)


def _decode(path: Path) -> tuple[str, bool]:
    """The text of a file, and whether all of it is UTF-8. Other bytes become lone surrogates."""
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig"), True
    except UnicodeDecodeError:
        text = raw.decode("utf-8-sig", "surrogateescape")
        if text.lstrip(" \t\r\n")[:1] != "[":  # not even the brackets can be read
            raise UserError(not_utf8(str(path), raw)) from None
        return text, False


def _begin_list(text: str, path: Path) -> int:
    """The position of the first element."""
    at = _skip_space(text, 0)
    if at < len(text) and text[at] != "[":
        raise UserError(
            f"{_place(text, at, path)}: found {text[at : at + 20]!r}; a .json file must contain a list of records. "
            "Wrap the records in [ ], or rename a file with one record per line to .jsonl."
        )
    return _skip_space(text, at + 1)


def _end_list(text: str, at: int, path: Path) -> None:
    if at >= len(text):
        if text.strip():
            raise UserError(f"{path}: the list does not end with ']'. The file may be truncated; write it again.")
        return
    rest = _skip_space(text, at + 1)
    if rest < len(text):
        raise UserError(
            f"{_place(text, rest, path)}: found {text[rest : rest + 20]!r} after the end of the list; a .json file "
            "must contain one list. Join the lists, or write one record per line to a .jsonl file."
        )


_REFUSED = object()


def _decode_element(text: str, at: int, path: Path, origin: str, reject: Reject) -> tuple[object, int]:
    """An element and where it ends; `_REFUSED` if it is valid JSON but cannot be a record."""
    try:
        return _STRICT.raw_decode(text, at)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: {_fault(error)}") from None
    except (ValueError, RecursionError) as error:
        reject(f"{origin}: {_fault(error)}")
    try:
        _, end = _LENIENT.raw_decode(text, at)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: {_fault(error)}") from None
    except RecursionError:
        end = _end_of_brackets(text, at)
    return _REFUSED, end


def _end_of_brackets(text: str, at: int) -> int:
    """Where a value too deeply nested for the decoder ends; the end of the text if it never does."""
    depth = 0
    for found in _BRACKET.finditer(text, at):
        if found[0][0] != '"':
            depth += 1 if found[0] in "[{" else -1
        if depth == 0:
            return found.end()
    return len(text)


def _next_element(text: str, end: int, path: Path) -> int:
    at = _skip_space(text, end)
    if at < len(text) and text[at] == ",":
        following = _skip_space(text, at + 1)
        if text[following : following + 1] == "]":
            raise UserError(f"{_place(text, at, path)}: found ',' before the end of the list; remove it.")
        return following
    if at < len(text) and text[at] != "]":
        raise UserError(f"{_place(text, at, path)}: found {text[at : at + 20]!r}; expected ',' or ']' between records.")
    return at


def _skip_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None  # the pattern matches the empty string
    return match.end()


def _place(text: str, at: int, path: Path) -> str:
    return f"{path}:{1 + text.count(chr(10), 0, at)}"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object. JSON allows duplicate names without defining which value counts, so they are rejected."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names: set[str] = set()
        for name, _ in pairs:
            if name in names:
                raise _DuplicateFieldError(f"duplicate field {name!r}; keep one of the two.")
            names.add(name)
    return fields


_STRICT = json.JSONDecoder(object_pairs_hook=_object)
_LENIENT = json.JSONDecoder(parse_int=str)
"""Finds the end of a rejected record."""


def _fault(error: ValueError | RecursionError) -> str:
    if isinstance(error, json.JSONDecodeError):
        fault = error.msg.removesuffix(" at")  # as in "Unterminated string starting at"
        return f"not valid JSON ({fault} at column {error.colno}); correct this line."
    if isinstance(error, RecursionError):
        return _TOO_DEEP
    if isinstance(error, _DuplicateFieldError):
        return str(error)
    return "an integer with thousands of digits; write it as text, or remove the field."


def _as_record(fields: object, origin: str, reject: Reject) -> Iterator[Record]:
    if isinstance(fields, dict):
        yield Record(fields, origin)
    else:
        reject(f"{origin}: found {kind_of(fields)}; expected an object with named fields.")
