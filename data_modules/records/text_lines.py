"""Reads text files line by line, with bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import IO, AnyStr

from data_modules.records.conversation import MAX_TEXT_BYTES
from data_modules.records.record import Reject

MAX_LINE = 4 * MAX_TEXT_BYTES
"""Maximum number of bytes in a line (characters in .csv files): the text of a record, escaped, plus unused fields."""


def read_lines(path: Path, reject: Reject) -> Iterator[tuple[int, str]]:
    """Yield numbered, non-blank lines, split at newlines only (not at U+2028 or a lone carriage return)."""
    with path.open("rb") as stream:
        for number in count(1):
            raw = stream.readline(MAX_LINE + 1)
            if not raw:
                return
            place = f"{path}:{number}"
            if len(raw) > MAX_LINE and not raw.endswith(b"\n"):
                skip_line(stream)
                reject(too_long(place))
                continue
            try:
                line = raw.rstrip(b"\r\n").decode("utf-8-sig")
            except UnicodeDecodeError as error:
                reject(not_utf8(place, error))
                continue
            if "\0" in line:
                reject(null_character(place))
            elif line.strip():
                yield number, line


def skip_line(stream: IO[AnyStr]) -> int:
    """Read to the end of a line; returns the number of quotes in it."""
    quotes = 0
    while part := stream.readline(MAX_LINE):
        quotes += part.count('"' if isinstance(part, str) else b'"')
        if part[-1:] in ("\n", "\r", b"\n"):
            break
    return quotes


def too_long(place: str) -> str:
    """The message for a line that is too long to read."""
    return f"{place}: a line of more than {MAX_LINE:,} bytes; split the record."


def null_character(place: str) -> str:
    """The message for text with a null character."""
    return f"{place}: contains a null character, so it is not plain UTF-8 text; save the file as UTF-8."


def not_utf8(place: str, error: UnicodeDecodeError) -> str:
    """The message for bytes that are not UTF-8."""
    return f"{place}: not UTF-8 ({error.reason} at byte {error.start}); save the file as UTF-8."


def escaped_byte(text: str) -> str | None:
    """The first byte that is not UTF-8 in text decoded with `surrogateescape`; None if there is none."""
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"0x{ord(text[error.start]) - 0xDC00:02x}"
    return None
