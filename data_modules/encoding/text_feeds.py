"""Encodes the documents of one split, source by source, and continues where an earlier process was killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from data_modules.encoding.pool import ChunkPool
from data_modules.encoding.shard_writer import ShardWriter
from data_modules.encoding.text_chunks import EncodedDocuments, TextChunk, TextTask, text_chunks
from data_modules.encoding.text_judges import Judges
from data_modules.encoding.text_ledger import TextCounts, text_ledger
from data_modules.errors import UserError
from data_modules.progress import Progress
from data_modules.records.columns import check_found
from data_modules.records.content_keys import among_lowest, hash_of
from data_modules.records.counts import LISTED, RecordCounts
from data_modules.records.documents import Document, read_documents
from data_modules.records.readers import source_bytes
from data_modules.records.splits import Sources, all_invalid, split_of

Keys = npt.NDArray[np.uint64]

_MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Feed:
    """A source of documents.

    Attributes:
        name: Its name in a mixture; empty outside mixtures.
        sources: Its files and how they are read.
        task: What is done with its documents.
    """

    name: str
    sources: Sources
    task: TextTask


@dataclass(frozen=True, slots=True)
class SplitRun:
    """The encoding of a split.

    Attributes:
        split: Its name.
        feeds: Its sources.
        writer: Writes its shards.
        pool: Encodes chunks.
        taken: Keys of the documents of earlier splits, sorted.
        judges: Compare documents with earlier ones, of all splits.
    """

    split: str
    feeds: list[Feed]
    writer: ShardWriter
    pool: ChunkPool[TextChunk, EncodedDocuments]
    taken: Keys
    judges: Judges


def encode_feeds(run: SplitRun) -> list[dict[str, Any]]:
    """Encode a split, or the rest of it after the last finished shard.

    Args:
        run: The split and what encodes it.

    Returns:
        The ledger of each source.

    Raises:
        UserError: If a record is invalid and `on_invalid` is `error`, or a file cannot be read.
        ChildProcessError: If a process died.
    """
    for judged in run.writer.judged():
        run.judges.replay(judged)
    if (final := run.writer.final_state) is not None:
        return list(final["ledgers"])
    state = run.writer.state or {"ledgers": [], "chunks": 0, "counts": None}
    ledgers: list[dict[str, Any]] = list(state["ledgers"])
    try:
        for feed in run.feeds[len(ledgers) :]:
            has_started = len(ledgers) == len(state["ledgers"])
            counts = TextCounts.from_dict(state["counts"]) if has_started and state["counts"] else TextCounts()
            ledgers.append(_encode_feed(run, feed, ledgers, counts, state["chunks"] if has_started else 0))
        run.writer.finish({"ledgers": ledgers, "chunks": 0, "counts": None})
    finally:
        run.writer.close()
    return ledgers


def _encode_feed(
    run: SplitRun, feed: Feed, ledgers: list[dict[str, Any]], counts: TextCounts, num_done: int
) -> dict[str, Any]:
    """Encode the documents of a source; returns its ledger.

    Args:
        run: The split.
        feed: The source.
        ledgers: Those of the sources before it.
        counts: Counts of the chunks that are already written.
        num_done: The number of these chunks.
    """
    read, label = RecordCounts(feed.sources.on_invalid), f"{run.split} {feed.name}".strip()
    meter = _Meter(f"encoding {label}", feed)
    chunks = text_chunks(feed.task, _documents(run, feed, read, meter))
    if num_done:
        meter.begin(f"finding the place in {label}")
        for _ in islice(chunks, num_done):
            pass
        meter.begin(f"encoding {label}")
    with meter:
        for number, result in enumerate(run.pool.run_chunks(chunks), start=num_done + 1):
            is_new = np.asarray(~_are_in(result.keys, run.taken).any(axis=1))
            keep, judged = run.judges.judge(feed.task.cleaner, result, is_new)
            counts.add(_counted(result, is_new, keep))
            run.writer.add(result, keep, judged)
            if run.writer.is_full:
                run.writer.end_shard({"ledgers": ledgers, "chunks": number, "counts": counts.as_dict()})
    if run.split in feed.sources.files:
        _check_read(feed, read)
    else:
        read = RecordCounts(read.on_invalid)  # training counts its invalid records, and those left out
    return text_ledger(read, counts)


def _documents(run: SplitRun, feed: Feed, read: RecordCounts, meter: _Meter) -> Iterator[Document]:
    documents = read_documents(run.split, feed.sources, read, on_bytes=meter.add)
    if run.split != "train" or feed.sources.cap is None:
        yield from documents
        return
    fits = _under_cap(run, feed)
    for document in documents:
        if fits(document):
            yield document
        else:
            read.left_out += 1


def _under_cap(run: SplitRun, feed: Feed) -> Callable[[Document], bool]:
    """Whether a training document is one of those with the lowest hashes; call it once per document, in any order."""

    def number_of(document: Document) -> int | None:
        """A document's hash; None if it is not trained on anyway."""
        keys = document.keys(feed.task.keep_together)
        shares = feed.task.shares
        is_trained = shares is None or split_of(keys[0], shares, feed.task.train_fraction) == "train"
        hashes = np.asarray([hash_of(key) for key in keys], dtype=np.uint64)
        return int(hashes[-1]) if is_trained and not _are_in(hashes, run.taken).any() else None

    with _Meter(f"choosing records of {feed.name or run.split}", feed) as meter:
        counts = RecordCounts(feed.sources.on_invalid)
        documents = read_documents("train", feed.sources, counts, on_bytes=meter.add)
        numbers = (number for document in documents if (number := number_of(document)) is not None)
        fits = among_lowest(numbers, feed.sources.cap or 0)

    def is_read(document: Document) -> bool:
        number = number_of(document)
        return number is None or fits(number)

    return is_read


def _are_in(keys: Keys, known: Keys) -> npt.NDArray[np.bool_]:
    """Which keys are among known ones, which are sorted and not 0."""
    if not len(known):
        return np.zeros(keys.shape, dtype=np.bool_)
    places = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return np.asarray(known[places] == keys)


def _counted(result: EncodedDocuments, is_new: npt.NDArray[np.bool_], keep: npt.NDArray[np.bool_]) -> TextCounts:
    """The counts of a chunk, of which no earlier split has some documents, and some of these are written."""
    lost = [message for index, message in result.lost if keep[index]]
    documents, tokens = int(keep.sum()), int(result.lengths[keep].sum())
    counts = result.counts
    counts.add(
        TextCounts(
            duplicates=int((~is_new).sum()),
            duplicate_characters=int(result.num_characters[~is_new].sum()),
            documents=documents,
            characters=int(result.num_characters[keep].sum()),
            bytes=int(result.num_bytes[keep].sum()),
            text_tokens=tokens - documents * result.num_special,
            special_tokens=documents * result.num_special,
            unknown_text=len(lost),
            unknown_first=lost[:LISTED],
        )
    )
    return counts


def _check_read(feed: Feed, read: RecordCounts) -> None:
    """Refuse files without a valid record, and columns that no record has."""
    files = feed.sources.files["train" if feed.task.split not in feed.sources.files else feed.task.split]
    if read.num_invalid and not read.records_read:
        raise UserError(all_invalid(files, read, has_format=False))
    names = {name for counts in read.unknown_fields.values() for name in counts}
    check_found(feed.sources.columns, read.columns_found, names)


class _Meter:
    """Shows how many megabytes of a source's files have been read.

    Args:
        what: What is being done.
        feed: The source.
    """

    def __init__(self, what: str, feed: Feed) -> None:
        split = feed.task.split if feed.task.split in feed.sources.files else "train"
        sizes = [source_bytes(file) for file in feed.sources.files[split]]
        known = [size for size in sizes if size is not None]
        self._total = sum(known) if len(known) == len(sizes) else None
        self._read = self._shown = 0
        self._progress: Progress | None = None
        self.begin(what)

    def begin(self, what: str) -> None:
        """Start again with what is left."""
        self.__exit__(None, None, None)
        self._shown = self._read // _MB
        left = None if self._total is None else max(1, -(-self._total // _MB) - self._shown)
        self._progress = Progress(what, "MB", left)
        self._progress.__enter__()

    def add(self, count: int) -> None:
        """Count bytes."""
        self._read += count
        if self._progress is not None and (new := self._read // _MB - self._shown):
            self._shown += new
            self._progress.update(new)

    def __enter__(self) -> _Meter:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._progress is not None:
            self._progress.__exit__(*error)
            self._progress = None
