"""Records of .csv files: a header, then one row a record; rows may span several lines."""

from __future__ import annotations

import csv
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from data_modules.errors import UserError
from data_modules.records.record import Record, Reject, readable
from data_modules.records.text_lines import MAX_LINE, escaped_byte, null_character, skip_line, too_long

_field_limit = threading.Lock()
"""The csv module has one limit for the whole process; it is raised while a row is read and then restored."""


def read_csv(path: Path, reject: Reject) -> Iterator[Record]:
    """Rows by the names in the header.

    Raises:
        UserError: If the header is unusable, or a quote is not closed where it can be told: every row after it may
            be part of the quoted text.
    """
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        lines = _Lines(stream)
        rows = csv.reader(lines, strict=True)
        header: list[str] = []
        while not header:
            row = _next_row(rows, lines, path, _refuse)
            if row is None:
                return
            header = row
        _check_header(header, f"{path}:{lines.first}")
        while (row := _next_row(rows, lines, path, reject)) is not None:
            place = f"{path}:{lines.first}"
            fault = _fault_of(row, header, place)
            if fault:
                reject(fault)
            elif row:
                yield Record(dict(zip(header, row, strict=True)), place)


class _LongLineError(UserError):
    """A line longer than any row should be."""


class _Lines:
    """Lines of a stream for the csv module.

    Attributes:
        first: Number of the first line of the row being read.
        number: Number of the last line given.
        quotes: Quotes in the lines of the row so far.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.number = 0
        self.begin_row()

    def begin_row(self) -> None:
        self.first, self.quotes = self.number + 1, 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._stream.readline(MAX_LINE + 1)
        if not line:
            raise StopIteration
        self.number += 1
        self.quotes += line.count('"')
        if len(line) > MAX_LINE and line[-1] not in "\r\n":
            self.quotes += skip_line(self._stream)
            raise _LongLineError
        return line


def _next_row(rows: Iterator[list[str]], lines: _Lines, path: Path, reject: Reject) -> list[str] | None:
    """The next row that can be parsed; None at the end of the file."""
    fault = ""
    while True:
        lines.begin_row()
        try:
            row = _parse(rows)
        except (csv.Error, _LongLineError) as error:
            fault = _fault_of_line(error, f"{path}:{lines.first}")
            # a row that is one line, with as many quotes opened as closed, is followed by another row
            if lines.first != lines.number or lines.quotes % 2:
                raise UserError(fault + _UNCLOSED) from None
            reject(fault)
        else:
            if fault and lines.quotes % 2:  # the rest of what the faulty line began
                raise UserError(fault + _UNCLOSED)
            return row


_UNCLOSED = " A quote seems to be open at the end of a line, so the rows after it cannot be told apart."


def _parse(rows: Iterator[list[str]]) -> list[str] | None:
    with _field_limit:
        before = csv.field_size_limit(MAX_LINE)
        try:
            return next(rows, None)
        finally:
            csv.field_size_limit(before)


def _fault_of_line(error: csv.Error | _LongLineError, place: str) -> str:
    if isinstance(error, _LongLineError):
        return too_long(place)
    return f"{place}: not valid CSV ({error}); quote the field properly."


def _refuse(message: str) -> None:
    raise UserError(message)


def _check_header(header: list[str], place: str) -> None:
    byte = escaped_byte("".join(header))
    if byte is not None:
        raise UserError(f"{place}: not UTF-8 (byte {byte}); save the file as UTF-8.")
    if any("\0" in name for name in header):
        raise UserError(null_character(place))
    if header[0].startswith("\ufeff"):
        raise UserError(f"{place}: the file begins with two byte order marks; remove them.")
    for number, name in enumerate(header, start=1):
        if not name.strip():
            raise UserError(
                f"{place}: column {number} of the header has no name; name it or leave it out (pandas: "
                "`to_csv(..., index=False)`)."
            )
    duplicate = next((name for name, times in Counter(header).items() if times > 1), None)
    if duplicate is not None:
        raise UserError(f"{place}: duplicate column {readable(duplicate)!r} in the header; rename or remove one.")


def _fault_of(row: list[str], header: list[str], place: str) -> str | None:
    """What is wrong with a row, if anything; a blank line is no row."""
    if not row:
        return None
    if len(row) != len(header):
        names = ", ".join(map(readable, header))
        return (
            f"{place}: the row does not have the {len(header)} columns of the header ({names}) but {len(row)}; quote "
            "fields that hold commas or line breaks."
        )
    for cell in row:
        if "\0" in cell:
            return null_character(place)
        byte = escaped_byte(cell)
        if byte is not None:
            return f"{place}: not UTF-8 (byte {byte}); save the file as UTF-8."
    return None
