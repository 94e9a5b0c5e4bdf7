"""Reads the plain documents of text runs, each with the keys that decide its split."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

from data_modules.errors import UserError
from data_modules.records.column_proposals import text_proposal
from data_modules.records.columns import in_columns, renamed
from data_modules.records.content_keys import KeepTogether, document_key
from data_modules.records.counts import RecordCounts
from data_modules.records.field_values import text
from data_modules.records.formats import check_fields, group_of, has_conversation
from data_modules.records.readers import read_records
from data_modules.records.record import Record
from data_modules.records.splits import Sources
from data_modules.records.text_lines import Reading

MAX_DOCUMENT_BYTES = 2**28
"""Maximum number of bytes in a document. Encoding one takes up to 20 times as much memory."""


TO_FINE_TUNE = "This is a conversation; to fine-tune on it, leave out `data_module: text`. "
"""Advice for text runs; other commands leave it out."""

_ANY = "`--data.columns '{text: FIELD}'`"


@dataclass(frozen=True, slots=True)
class Document:
    """A plain document.

    Attributes:
        text: Its text, not blank.
        origin: `file:line`.
        group: Documents of one group stay in one split. None: no group.
    """

    text: str
    origin: str
    group: str | None = None

    def keys(self, keep_together: KeepTogether = "exact") -> list[str]:
        """Keys that no document of another split may share; the first decides the split of this one.

        They are made as for conversations: see `keys_of`.

        Args:
            keep_together: Which documents count as the same.
        """
        content = document_key(self.text, keep_together)
        return [content] if self.group is None else [f"group {self.group}", content]


def read_documents(
    split: str, sources: Sources, counts: RecordCounts, *, on_bytes: Callable[[int], None] | None = None
) -> Iterator[Document]:
    """Read the valid documents of a split's files; those of `train` if the split has none of its own.

    Args:
        split: The split.
        sources: Its files and how they are read.
        counts: Counts valid documents in `records_read`, and invalid ones separately.
        on_bytes: Called after each read with the number of bytes read, to show progress.

    Raises:
        UserError: If any is invalid and `on_invalid` is `error`.
    """
    reading = Reading(4 * MAX_DOCUMENT_BYTES, sources.txt_documents)
    reading = reading if on_bytes is None else Reading(reading.most_bytes, reading.txt, on_bytes)
    files = sources.files[split if split in sources.files else "train"]
    for record in chain.from_iterable(read_records(file, reject=counts.reject, reading=reading) for file in files):
        try:
            document = to_document(renamed(record, sources.columns, counts.columns_found), counts)
        except UserError as error:
            counts.reject(in_columns(str(error), record, sources.columns))
            continue
        counts.records_read += 1
        yield document


def to_document(record: Record, counts: RecordCounts | None = None) -> Document:
    """Read a record with the field `text`.

    Args:
        record: The record.
        counts: Counts the fields that are not used, if given.

    Raises:
        UserError: If the text is missing, blank, too long or not valid Unicode, or another field is refused.
    """
    if "text" not in record.fields:
        raise UserError(
            f"{record.origin}: no field 'text'; found {record.field_names or 'no fields'}. {_advice(record)}"
        )
    check_fields(record, "text", counts)
    try:
        content, group = text(record.fields, "text"), group_of(record)
    except UserError as error:
        raise UserError(f"{record.origin}: {error}") from None
    fault = _fault(content)
    if fault:
        raise UserError(f"{record.origin}: {fault}, or set `--data.on_invalid drop`.")
    return Document(content, record.origin, group)


def _advice(record: Record) -> str:
    """What to do with a record without text."""
    named = text_proposal(record.fields)
    if has_conversation(record):
        return f"{TO_FINE_TUNE}To read one field as plain text, set {named or _ANY}."
    return f"Set {named}, or complete the record." if named else f"Complete the record, or set {_ANY}."


def _fault(content: str) -> str | None:
    """What is wrong with a text, if anything."""
    if not content.strip():
        return "the text is empty; expected a document. Fill it in"
    try:
        size = len(content) if content.isascii() else len(content.encode())
    except UnicodeEncodeError as error:
        surrogate = f"{content[error.start]!a}"
        return f"contains the lone surrogate {surrogate}, which is not valid Unicode. Repair the file's encoding"
    if size > MAX_DOCUMENT_BYTES:
        return f"{size:,} bytes of text; expected at most {MAX_DOCUMENT_BYTES:,} per document. Split the record"
    return None
