"""Reads text files line by line, with bounded memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import IO, AnyStr, Literal

from data_modules.errors import UserError
from data_modules.records.conversation import MAX_TEXT_BYTES
from data_modules.records.record import Reject

MAX_LINE = 4 * MAX_TEXT_BYTES
"""Maximum number of bytes in a line (characters in .csv and .tsv files): the text of a record, escaped, plus unused
fields."""


TxtDocuments = Literal["line", "paragraph", "file"]


def _ignore(_: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Reading:
    """How files are read.

    Attributes:
        most_bytes: Maximum number of bytes in a line (characters in .csv and .tsv files). None: `MAX_LINE`.
        txt: What a document is in a .txt file: every line, the lines between two blank ones, or the whole file.
        on_bytes: Called after each read with the number of bytes read, to show progress.
    """

    most_bytes: int | None = None
    txt: TxtDocuments = "line"
    on_bytes: Callable[[int], None] = _ignore


USUAL = Reading()


def read_lines(
    path: Path, reject: Reject, reading: Reading = USUAL, *, blank: bool = False
) -> Iterator[tuple[int, str]]:
    """Yield numbered lines, split at newlines only (not at U+2028 or a lone carriage return).

    Args:
        path: The file.
        reject: Receives the message for each unreadable line.
        reading: The maximum length of a line, and the callback for progress.
        blank: Whether to yield blank lines too.
    """
    limit = reading.most_bytes or MAX_LINE
    with path.open("rb") as stream:
        for number in count(1):
            raw = stream.readline(limit + 1)
            if not raw:
                return
            place = f"{path}:{number}"
            reading.on_bytes(len(raw))
            if len(raw) > limit and not raw.endswith(b"\n"):
                skip_line(stream)
                reject(too_long(place, limit))
                continue
            try:
                line = raw.rstrip(b"\r\n").decode("utf-8-sig")
            except UnicodeDecodeError as error:
                reject(not_utf8(place, error.object))
                continue
            if "\0" in line:
                reject(null_character(place))
            elif blank or line.strip():
                yield number, line


def skip_line(stream: IO[AnyStr]) -> int:
    """Read to the end of a line; returns the number of quotes in it."""
    quotes = 0
    while part := stream.readline(MAX_LINE):
        quotes += part.count('"' if isinstance(part, str) else b'"')
        if part[-1:] in ("\n", "\r", b"\n"):
            break
    return quotes


def too_long(place: str, limit: int) -> str:
    """The message for a line that is too long to read."""
    return f"{place}: a line of more than {limit:,} bytes; split the record."


def null_character(place: str) -> str:
    """The message for text with a null character."""
    return f"{place}: contains a null character, so it is not plain UTF-8 text; save the file as UTF-8."


NOT_UTF8 = ": not UTF-8 ("
"""What follows the place in the message for text that is not UTF-8."""


def not_utf8(place: str, raw: bytes | str) -> str:
    """The message for bytes that are not UTF-8, with a guess at what they are.

    Args:
        place: Where they are.
        raw: The bytes; or text that was decoded with `surrogateescape`.
    """
    raw = raw.encode("utf-8", "surrogateescape") if isinstance(raw, str) else raw
    encoding = likely_encoding(raw)
    return (
        f"{place}{NOT_UTF8}byte {_first_wrong_byte(raw)}); it looks like {_NAMES[encoding]}. Convert the file: "
        f"`iconv -f {encoding} -t UTF-8 OLD > NEW`, or save it as UTF-8 in an editor (in Excel: CSV UTF-8)."
    )


def likely_encoding(raw: bytes) -> str:
    """The likeliest encoding of bytes that are not UTF-8, by its name for `iconv`.

    Chinese characters of GB18030 are pairs of high bytes, mostly several in a row; a letter with an accent is one.

    Args:
        raw: Some text, such as a line.
    """
    runs = [len(run) for run in re.findall(rb"[\x80-\xff]+", raw)]
    if _decodes(raw, "gb18030") and sum(run % 2 == 0 for run in runs) > len(runs) / 2:
        return "GB18030"
    return "WINDOWS-1252" if _decodes(raw, "cp1252") else "ISO-8859-1"


_NAMES = {
    "GB18030": "GB18030 (the Chinese encoding of Windows)",
    "WINDOWS-1252": "Windows-1252 or Latin-1 (the Western encodings of Windows and Excel)",
    "ISO-8859-1": "Latin-1 (ISO-8859-1)",
}


def _decodes(raw: bytes, encoding: str) -> bool:
    try:
        raw.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _first_wrong_byte(raw: bytes) -> str:
    return escaped_byte(raw.decode("utf-8", "surrogateescape")) or ""


def check_encoding(path: Path) -> None:
    """Refuse a file that begins with the byte order mark of UTF-16 or UTF-32: none of its lines could be read.

    Raises:
        UserError: If it does.
    """
    with path.open("rb") as stream:
        start = stream.read(4)
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if start.startswith(mark):
            raise UserError(
                f"{path}: {encoding} (it begins with the byte order mark {mark.hex(' ').upper()}); expected UTF-8. "
                f"Convert it: `iconv -f {encoding} -t UTF-8 OLD > NEW`, or save it as UTF-8 in an editor."
            )


_BYTE_ORDER_MARKS = {
    b"\xff\xfe\0\0": "UTF-32",  # begins like that of UTF-16
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


def escaped_byte(text: str) -> str | None:
    """The first byte that is not UTF-8 in text decoded with `surrogateescape`; None if there is none."""
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"0x{ord(text[error.start]) - 0xDC00:02x}"
    return None
