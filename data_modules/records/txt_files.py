"""Records from .txt files: every line, the lines between two blank ones, or the whole file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_modules.records.record import Record, Reject
from data_modules.records.text_lines import MAX_LINE, USUAL, Reading, read_lines


def read_txt(path: Path, reject: Reject, reading: Reading = USUAL) -> Iterator[Record]:
    """Read the documents of a .txt file.

    Args:
        path: The file.
        reject: Receives the message for each unreadable line or document.
        reading: What a document is: by default, every line that is not blank.
    """
    if reading.txt == "line":
        for number, line in read_lines(path, reject, reading):
            yield Record({"text": line}, f"{path}:{number}")
        return
    limit = (reading.most_bytes or MAX_LINE) // 4  # the limit for a text in other kinds of files
    lines, first, size = list[str](), 1, 0
    is_damaged = False

    def reject_line(message: str) -> None:
        nonlocal is_damaged
        is_damaged = True  # without this line, it would be a different document
        reject(message)

    for number, line in read_lines(path, reject_line, reading, blank=True):
        is_end = reading.txt == "paragraph" and not line.strip()
        if is_end and size and not is_damaged:
            yield from _document(lines, f"{path}:{first}", size, limit, reject)
        if is_end:
            lines, size, is_damaged = [], 0, False
            continue
        first = first if size else number
        size += len(line.encode()) + 1
        if size <= limit:  # a document that is too long is not kept in memory
            lines.append(line)
    if size and not is_damaged:
        yield from _document(lines, f"{path}:{first}", size, limit, reject)


def _document(lines: list[str], origin: str, size: int, limit: int, reject: Reject) -> Iterator[Record]:
    if size > limit:
        reject(
            f"{origin}: a document of {size:,} bytes; expected at most {limit:,}. Separate documents by blank lines "
            "with `--data.txt_documents paragraph`, or split the file."
        )
    elif text := "\n".join(lines).strip("\n"):
        yield Record({"text": text}, origin)
