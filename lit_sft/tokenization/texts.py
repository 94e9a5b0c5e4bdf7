"""The texts of records: documents, and every message of conversations. Read one record at a time."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import get_args

from data_modules.errors import UserError
from data_modules.records.columns import check_columns, check_found, in_columns, renamed
from data_modules.records.counts import OnInvalid, RecordCounts
from data_modules.records.documents import MAX_DOCUMENT_BYTES
from data_modules.records.formats import FORMATS, FormatName, recognise_format
from data_modules.records.readers import read_records
from data_modules.records.record import Record
from data_modules.records.text_lines import Reading, TxtDocuments
from data_modules.wording import did_you_mean

_PIECE = 1 << 16
"""A long text is cut at the first end of a word after this many characters."""


_SIGN = re.compile("[\\x00-@[-`{-\\x7f\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f]")
"""Characters that are not letters in any version of Unicode: ASCII and Chinese punctuation, digits, spaces."""

_MOST_NAMES = 100
"""Fields of a record that are remembered, to suggest one if a column is missing."""


@dataclass(frozen=True, slots=True)
class Text:
    """One text of a record.

    Attributes:
        text: The text; not empty.
        origin: Where the record is, `file:line`.
        num_bytes: Its size in UTF-8.
    """

    text: str
    origin: str
    num_bytes: int


@dataclass(frozen=True)
class TextFiles:
    """Files to read texts from.

    Attributes:
        files: Files, folders or hub names.
        columns: The column that each field is read from.
        format: A name in FORMATS. None: detected from the fields, file by file.
        on_invalid: Whether an invalid record is an error or is counted and skipped.
        txt_documents: What a document is in a .txt file: every line, the lines between two blank ones, or the file.
    """

    files: tuple[str, ...]
    columns: Mapping[str, str] = field(default_factory=dict)
    format: str | None = None
    on_invalid: OnInvalid = "error"
    txt_documents: TxtDocuments = "line"

    def __post_init__(self) -> None:
        if not self.files:
            raise UserError("no data: name files, folders or hub names.")
        known: tuple[str, ...] = get_args(FormatName)
        if self.format is not None and self.format not in known:
            hint = did_you_mean(self.format, known) or f"expected {', '.join(known)}."
            raise UserError(f"--format {self.format}: no such format; {hint}")
        if self.on_invalid not in get_args(OnInvalid):
            raise UserError(f"--on_invalid {self.on_invalid}: expected error or drop.")
        if self.txt_documents not in get_args(TxtDocuments):
            raise UserError(f"--txt_documents {self.txt_documents}: expected line, paragraph or file.")
        check_columns(self.columns, self.format, option="--columns")

    @property
    def reading(self) -> Reading:
        """How files are read: as in text runs."""
        return Reading(4 * MAX_DOCUMENT_BYTES, self.txt_documents)

    @property
    def _format(self) -> str | None:
        """The format, if it is known without looking at a record."""
        return self.format or ("text" if set(self.columns) == {"text"} else None)


def read_texts(files: TextFiles, source: str, counts: RecordCounts | None = None) -> Iterator[Text]:
    """Every text of a source in order.

    Args:
        files: How records are read.
        source: One of its files.
        counts: Counts the records, and the invalid ones.

    Raises:
        UserError: If the source cannot be read, has no records, or a record is invalid.
    """
    counts = RecordCounts(files.on_invalid) if counts is None else counts
    formats: dict[str, str] = {}
    names: set[str] = set()
    try:
        for record in read_records(source, reject=counts.reject, reading=files.reading):
            counts.records_read += 1
            if files.columns:
                names.update(list(record.fields)[:_MOST_NAMES])
            yield from _of_record(record, files, formats, counts)
        check_found(files.columns, counts.columns_found, names, option="--columns")
    except UserError as error:
        raise UserError(str(error).replace("--data.", "--")) from None


def _of_record(record: Record, files: TextFiles, formats: dict[str, str], counts: RecordCounts) -> list[Text]:
    given, record = record, renamed(record, files.columns, counts.columns_found)
    try:
        name = files._format or formats.get(record.file) or recognise_format(record)
        formats.setdefault(record.file, name)
        return [Text(text, record.origin, _size(text, record.origin)) for text in _texts(record, name)]
    except UserError as error:
        counts.reject(in_columns(str(error), given, files.columns))
        return []


def _texts(record: Record, name: str) -> Iterator[str]:
    layout = FORMATS[name]
    missing = [field for field in layout.fields if field not in record.fields]
    if missing:
        raise UserError(
            f"{record.origin}: format '{name}' needs the field{'s' * (len(missing) > 1)} {', '.join(missing)}; found "
            f"{record.field_names or 'no fields'}. Correct the record, `--columns` or `--format`."
        )
    try:
        turns = layout.turns(record.fields)
    except UserError as error:
        raise UserError(f"{record.origin}: {error}") from None
    return (text for turn in turns for text in turn.texts if text)


def _size(text: str, origin: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise UserError(
            f"{origin}: contains the lone surrogate {text[error.start]!a}, which is not valid Unicode; repair the file."
        ) from None


def pieces(text: str, length: int = _PIECE) -> Iterator[str]:
    """Cut a long text where every pre-tokenizer has a word boundary: after a letter, before a sign.

    Args:
        text: Any text.
        length: Minimum number of characters of a piece. Text without such a place is not cut.
    """
    start = 0
    while len(text) - start > length:
        signs = (sign.start() for sign in _SIGN.finditer(text, start + length))
        stop = next((at for at in signs if unicodedata.category(text[at - 1])[0] == "L"), None)
        if stop is None:
            break
        yield text[start:stop]
        start = stop
    yield text[start:]
