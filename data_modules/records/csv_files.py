"""Records from .csv and .tsv files: a header, then one row per record; a row may span several lines."""

from __future__ import annotations

import csv
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from data_modules.errors import UserError
from data_modules.records.record import Record, Reject, readable
from data_modules.records.text_lines import (
    MAX_LINE,
    USUAL,
    Reading,
    escaped_byte,
    not_utf8,
    null_character,
    skip_line,
    too_long,
)

_field_limit = threading.Lock()
"""Guards the csv module's process-wide limit, which is raised while a row is read and then restored."""


def read_csv(path: Path, reject: Reject, reading: Reading = USUAL) -> Iterator[Record]:
    """Read rows as fields named by the header. Fields are separated by commas; in a .tsv file, by tabs.

    Raises:
        UserError: If the header is unusable, or a quote is never closed: every row after it may be part of the quoted
            text.
    """
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        lines = _Lines(stream, reading)
        rows = csv.reader(lines, delimiter=_separator(path), strict=True)
        header: list[str] = []
        while not header:
            row = _next_row(rows, lines, path, _refuse)
            if row is None:
                return
            header = row
        _check_header(header, f"{path}:{lines.first}", _separator(path))
        while (row := _next_row(rows, lines, path, reject)) is not None:
            place = f"{path}:{lines.first}"
            fault = _fault_of(row, header, place)
            if fault:
                reject(fault)
            elif row:
                yield Record(dict(zip(header, row, strict=True)), place)


def _separator(path: Path) -> str:
    return "\t" if path.suffix.lower() == ".tsv" else ","


class _LongLineError(UserError):
    """A line is too long to be a row."""


class _Lines:
    """Feeds the lines of a stream to the csv module.

    Attributes:
        limit: Maximum number of characters in a line.
        first: Number of the first line of the current row.
        number: Number of the last line read.
        quotes: Quotes in the current row so far.
    """

    def __init__(self, stream: TextIO, reading: Reading) -> None:
        self._stream, self._on_bytes = stream, reading.on_bytes
        self.limit = reading.most_bytes or MAX_LINE
        self.number = 0
        self.begin_row()

    def begin_row(self) -> None:
        self.first, self.quotes = self.number + 1, 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._stream.readline(self.limit + 1)
        if not line:
            raise StopIteration
        self.number += 1
        self._on_bytes(len(line.encode("utf-8", "surrogateescape")))
        self.quotes += line.count('"')
        if len(line) > self.limit and line[-1] not in "\r\n":
            self.quotes += skip_line(self._stream)
            raise _LongLineError
        return line


def _next_row(rows: Iterator[list[str]], lines: _Lines, path: Path, reject: Reject) -> list[str] | None:
    """The next row that can be parsed; None at the end of the file."""
    fault = ""
    while True:
        lines.begin_row()
        try:
            row = _parse(rows, lines.limit)
        except (csv.Error, _LongLineError) as error:
            fault = _fault_of_line(error, f"{path}:{lines.first}", lines.limit)
            # after a single line with balanced quotes, the next line starts a new row
            if lines.first != lines.number or lines.quotes % 2:
                raise UserError(fault + _UNCLOSED) from None
            reject(fault)
        else:
            if fault and lines.quotes % 2:  # this line closes a quote that the faulty line opened
                raise UserError(fault + _UNCLOSED)
            return row


_UNCLOSED = " A quote seems to be left open, so the rows that follow cannot be separated."


def _parse(rows: Iterator[list[str]], limit: int) -> list[str] | None:
    with _field_limit:
        before = csv.field_size_limit(limit)
        try:
            return next(rows, None)
        finally:
            csv.field_size_limit(before)


def _fault_of_line(error: csv.Error | _LongLineError, place: str, limit: int) -> str:
    if isinstance(error, _LongLineError):
        return too_long(place, limit)
    return f"{place}: not valid CSV ({error}); fix the quoting of this row: a quote in a field is doubled."


def _refuse(message: str) -> None:
    raise UserError(message)


def _check_header(header: list[str], place: str, separator: str) -> None:
    if escaped_byte("".join(header)) is not None:
        raise UserError(not_utf8(place, ",".join(header)))
    if any("\0" in name for name in header):
        raise UserError(null_character(place))
    if header[0].startswith("\ufeff"):
        raise UserError(f"{place}: the file starts with two byte order marks; remove them.")
    _check_separator(header, place, separator)
    for number, name in enumerate(header, start=1):
        if not name.strip():
            raise UserError(
                f"{place}: column {number} has no name in the header; name or remove it (in pandas: "
                "`to_csv(..., index=False)`)."
            )
    duplicate = next((name for name, times in Counter(header).items() if times > 1), None)
    if duplicate is not None:
        raise UserError(f"{place}: duplicate column {readable(duplicate)!r} in the header; rename or remove one.")


def _check_separator(header: list[str], place: str, expected: str) -> None:
    found = next((mark for mark in ",;\t|" if mark in header[0] and mark != expected), None)
    if len(header) > 1 or found is None:
        return
    names = {",": "commas", "\t": "tabs"}
    name = f", or name it .{'csv' if found == ',' else 'tsv'}" if found in names else ""
    raise UserError(
        f"{place}: one column, {readable(header[0])!r}, whose parts seem to be separated by {found!r}; expected "
        f"{names[expected]}. Save the file with {names[expected]} (in pandas: `to_csv`){name}."
    )


def _fault_of(row: list[str], header: list[str], place: str) -> str | None:
    """What is wrong with a row, if anything. Blank lines are fine."""
    if not row:
        return None
    if len(row) != len(header):
        names = ", ".join(map(readable, header))
        return (
            f"{place}: the row has {len(row)} column{'s' * (len(row) != 1)}; expected {len(header)} as in the header "
            f"({names}). Quote fields that contain commas, tabs or line breaks."
        )
    for cell in row:
        if "\0" in cell:
            return null_character(place)
        if escaped_byte(cell) is not None:
            return not_utf8(place, cell)
    return None
