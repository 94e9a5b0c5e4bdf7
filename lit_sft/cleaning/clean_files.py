"""Cleans the documents of files, from Python: the ledger of what the rules do, and the clean documents as a file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from data_modules.cleaning.cleaner import Cleaner
from data_modules.cleaning.ledger import CleaningLedger
from data_modules.errors import UserError
from data_modules.progress import with_progress
from data_modules.records.columns import check_found
from data_modules.records.counts import RecordCounts
from data_modules.records.documents import TO_FINE_TUNE, Document, read_documents
from data_modules.records.splits import Sources
from lit_sft.files import write_lines


def clean_files(
    sources: Sources, cleaner: Cleaner, *, output: Path | None = None, limit: int | None = None
) -> tuple[CleaningLedger, RecordCounts]:
    """Clean documents in reading order.

    Args:
        sources: The files of `train`, and how they are read.
        cleaner: The rules.
        output: A file of JSON lines for the clean documents, each with the field `text`, and
            `article_id` if the record has one. None: nothing is written.
        limit: Documents to read, at most. None: all.

    Returns:
        The ledger, and the counts of records read and of invalid ones.

    Raises:
        UserError: If the files cannot be read, or a record is invalid.
    """
    counts, ledger = RecordCounts(sources.on_invalid), cleaner.ledger()
    try:
        documents = with_progress(islice(_read(sources, counts), limit), "cleaning", "documents")
        cleaned = _cleaned(documents, cleaner, ledger)
        if output is not None:
            write_lines(output, map(_record, cleaned))
        for _ in cleaned:  # without output, only the ledger is wanted
            pass
    except UserError as error:
        raise UserError(str(error).replace(TO_FINE_TUNE, "").replace("--data.", "--")) from None
    return ledger, counts


def _read(sources: Sources, counts: RecordCounts) -> Iterator[Document]:
    yield from read_documents("train", sources, counts)
    names = {name for fields in counts.unknown_fields.values() for name in fields}
    check_found(sources.columns, counts.columns_found, names, option="--columns")


def _cleaned(documents: Iterator[Document], cleaner: Cleaner, ledger: CleaningLedger) -> Iterator[Document]:
    """The documents that stay, counted in the ledger."""
    duplicates = cleaner.duplicates()
    for document in documents:
        outcome = duplicates.judge(cleaner.clean(document.text))
        ledger.add(outcome, document.origin)
        if outcome.text is not None:
            yield replace(document, text=outcome.text)


def _record(document: Document) -> dict[str, str]:
    """A document as a record, with its `article_id`, so that documents of one article still stay in one split."""
    return {"text": document.text} | ({} if document.group is None else {"article_id": document.group})


def report_of(ledger: CleaningLedger, cleaner: Cleaner, files: list[str], counts: RecordCounts) -> dict[str, Any]:
    """The ledger as JSON values, with what was cleaned and how."""
    return {
        "files": files,
        "rules": cleaner.identity(),
        "invalid_records": counts.num_invalid,
        "ledger": ledger.as_dict(),
    }
