"""Cleans and encodes chunks of documents, in any process: `TextChunkEncoder` is called with a `TextChunk`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from data_modules.cleaning.cleaner import Cleaner
from data_modules.cleaning.outcome import Cleaned
from data_modules.encoding.strings import UnencodableError
from data_modules.encoding.text_encoder import EncodedText, TextEncoder
from data_modules.encoding.text_ledger import TextCounts
from data_modules.records.content_keys import KeepTogether, document_key, hash_of
from data_modules.records.counts import OnInvalid
from data_modules.records.documents import Document
from data_modules.records.splits import split_of

_CHUNK_DOCUMENTS = 1000
_CHUNK_CHARACTERS = 1_000_000
"""A chunk takes about half a second to encode and milliseconds to send. A longer document is a chunk of its own."""

NUM_KEYS = 3
"""Keys of a document: its group's, its text's as it was read, and its clean text's. 0: none."""


@dataclass(frozen=True, slots=True)
class TextTask:
    """What is done with the documents of a source.

    Attributes:
        split: The split that is being written.
        cleaner: Cleans them.
        source: Index of the source in a mixture; -1 outside mixtures.
        shares: Share of each held-out split. None: all of these documents belong to the split.
        train_fraction: Share of the remaining documents to train on.
        keep_together: Which documents count as the same.
        on_invalid: Whether a document that the tokenizer rejects stops the run or is dropped.
    """

    split: str
    cleaner: Cleaner
    source: int = -1
    shares: dict[str, float] | None = None
    train_fraction: float = 1.0
    keep_together: KeepTogether = "exact"
    on_invalid: OnInvalid = "error"


@dataclass(frozen=True, slots=True)
class TextChunk:
    """Documents and what is done with them."""

    task: TextTask
    documents: tuple[Document, ...]

    @property
    def num_characters(self) -> int:
        """Characters of all texts."""
        return sum(len(document.text) for document in self.documents)


@dataclass(frozen=True)
class EncodedDocuments:
    """The documents of a chunk that belong to the split, (N,), one after the other.

    Attributes:
        ids: Tokens of all documents, (T,) int32.
        sentence_ends: Whether each token completes a sentence, (T,) bool.
        lengths: Tokens of each document, (N,) int64.
        num_bytes: Bytes of each text in UTF-8, (N,) int64.
        num_characters: Characters of each text, (N,) int64.
        hashes: `hash_of` the key of each text as it was read, (N,) uint64.
        keys: `hash_of` the keys of each document, (N, NUM_KEYS) uint64; 0: no such key.
        source: Index of their source.
        num_special: Start and end tokens of a document.
        lost: For each document with text that the tokenizer cannot represent, its index and a message.
        outcomes: What cleaning made of each document, if it is to be compared with others; else empty. They are not in
            `counts.cleaning`.
        origins: Where these documents are.
        counts: What is known before documents are compared with others: those left out, cleaned and rejected.
    """

    ids: npt.NDArray[np.int32]
    sentence_ends: npt.NDArray[np.bool_]
    lengths: npt.NDArray[np.int64]
    num_bytes: npt.NDArray[np.int64]
    num_characters: npt.NDArray[np.int64]
    hashes: npt.NDArray[np.uint64]
    keys: npt.NDArray[np.uint64]
    source: int
    num_special: int
    lost: tuple[tuple[int, str], ...] = ()
    outcomes: tuple[Cleaned, ...] = ()
    origins: tuple[str, ...] = ()
    counts: TextCounts = field(default_factory=TextCounts)

    def __len__(self) -> int:
        return len(self.lengths)


@dataclass(slots=True)
class _Candidate:
    """A document of the split that is being encoded."""

    document: Document
    keys: list[int]
    outcome: Cleaned
    encoded: EncodedText | None = None

    @property
    def text(self) -> str:
        return self.outcome.text or ""


@dataclass(frozen=True)
class TextChunkEncoder:
    """Encodes chunks. Sent to every process once.

    Args:
        encoder: Encodes documents.
    """

    encoder: TextEncoder

    def __call__(self, chunk: TextChunk) -> EncodedDocuments:
        """Encode the documents of a chunk that belong to the split.

        Raises:
            UserError: If the tokenizer rejects one and `on_invalid` is `error`.
        """
        task, counts = chunk.task, TextCounts(cleaning=chunk.task.cleaner.ledger())
        found = list(self._encoded(list(_candidates(task, chunk.documents, counts)), task, counts))
        texts = [each.encoded for each in found if each.encoded is not None]
        return EncodedDocuments(
            ids=_joined([each.ids for each in texts], np.int32),
            sentence_ends=_joined([each.sentence_ends for each in texts], np.bool_),
            lengths=np.asarray([len(each.ids) for each in texts], dtype=np.int64),
            num_bytes=np.asarray([each.num_bytes for each in texts], dtype=np.int64),
            num_characters=np.asarray([len(each.text) for each in found], dtype=np.int64),
            hashes=np.asarray([each.keys[1] for each in found], dtype=np.uint64),
            keys=np.asarray([each.keys for each in found], dtype=np.uint64).reshape(-1, NUM_KEYS),
            source=task.source,
            num_special=1 + len(self.encoder.document_start),
            lost=tuple(
                (index, f"{each.document.origin}: {text.lost}")
                for index, (each, text) in enumerate(zip(found, texts, strict=True))
                if text.lost is not None
            ),
            outcomes=tuple(each.outcome.without_text() for each in found if each.outcome.fingerprint),
            origins=tuple(each.document.origin for each in found if each.outcome.fingerprint),
            counts=counts,
        )

    def _encoded(self, candidates: list[_Candidate], task: TextTask, counts: TextCounts) -> Iterator[_Candidate]:
        texts = [each.text for each in candidates]
        try:
            encoded: Sequence[EncodedText | None] = self.encoder.encode(texts)
        except UnencodableError:
            encoded = [None] * len(texts)
        for each, result in zip(candidates, encoded, strict=True):
            try:
                each.encoded = result or self.encoder.encode([each.text])[0]
            except UnencodableError as error:
                counts.reject(f"{each.document.origin}: {error}", task.on_invalid, len(each.text))
                if each.outcome.fingerprint:
                    counts.cleaning.add(each.outcome, each.document.origin)
            else:
                yield each


def text_chunks(task: TextTask, documents: Iterable[Document]) -> Iterator[TextChunk]:
    """Documents in chunks of similar size."""
    chunk: list[Document] = []
    size = 0
    try:
        for document in documents:
            chunk.append(document)
            size += len(document.text)
            if len(chunk) == _CHUNK_DOCUMENTS or size >= _CHUNK_CHARACTERS:
                yield TextChunk(task, tuple(chunk))
                chunk, size = [], 0
    except Exception:
        yield TextChunk(task, tuple(chunk))  # precedes the unreadable record, and may contain an earlier error
        raise
    if chunk:
        yield TextChunk(task, tuple(chunk))


def _candidates(task: TextTask, documents: Iterable[Document], counts: TextCounts) -> Iterator[_Candidate]:
    """The documents of the split that cleaning keeps."""
    for document in documents:
        keys = document.keys(task.keep_together)
        place = task.split if task.shares is None else split_of(keys[0], task.shares, task.train_fraction)
        if place != task.split:
            counts.left_out += task.split == "train" and place is None
            continue
        outcome = task.cleaner.clean(document.text)
        if not outcome.fingerprint:  # others are counted once they have been compared
            counts.cleaning.add(outcome, document.origin)
        if outcome.text is None:
            continue
        clean = keys[-1] if outcome.text == document.text else document_key(outcome.text, task.keep_together)
        hashes = [hash_of(key) for key in (*keys, clean)]
        yield _Candidate(document, [0] * (NUM_KEYS - len(hashes)) + hashes, outcome)


def _joined(parts: list[npt.NDArray[Any]], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=dtype)
