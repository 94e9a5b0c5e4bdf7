"""Encodes conversations or documents in chunks, in one process or several, with the same result."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import chain, islice
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from typing import Any, Generic, Self, TypeVar

import pyarrow as pa

from data_modules.encoding.encoder import Encoder, OverLongError
from data_modules.encoding.example import Example
from data_modules.encoding.example_store import record_batch
from data_modules.encoding.ledger import Ledger
from data_modules.errors import UserError
from data_modules.records.content_keys import content_key, hash_of
from data_modules.records.conversation import Conversation, expand_answers
from data_modules.records.counts import OnInvalid
from data_modules.records.splits import Samples

Chunk = list[Conversation]

AnyChunk = TypeVar("AnyChunk")
Result = TypeVar("Result")

_CHUNK_CONVERSATIONS = 500
_CHUNK_CHARACTERS = 1_000_000
"""A chunk takes about 0.25 seconds to encode and milliseconds to send. Chunks of long documents are shorter."""

_CHUNKS_ALONE = 4
"""Starting a process takes as long as encoding this many chunks; with less data, none is started."""

_CHUNKS_AHEAD = 2
"""Chunks queued or in progress per process: enough to keep it busy, few enough to limit memory."""

_CHARACTERS_AHEAD = 64_000_000
"""Maximum number of characters queued or in progress, if a single chunk has fewer. Limits memory where documents are
very long."""

_MOST_PROCESSES = 16
"""One process reads the records; more encoders than this would wait for it."""


@dataclass(frozen=True, slots=True)
class EncodedChunk:
    """The result of encoding a chunk.

    Attributes:
        num_conversations: Size of the chunk.
        examples: The examples in order.
        ledger: What happened to the conversations.
    """

    num_conversations: int
    examples: pa.RecordBatch
    ledger: Ledger


@dataclass(frozen=True, slots=True)
class ChunkEncoder:
    """Encodes chunks. Sent to every process once.

    Attributes:
        encoder: Encodes a conversation.
        on_invalid: Whether a conversation that the template rejects stops the run or is dropped.
        samples: `answer` makes a sample of every answer in a conversation.
    """

    encoder: Encoder
    on_invalid: OnInvalid = "error"
    samples: Samples = "conversation"

    def __call__(self, chunk: Chunk) -> EncodedChunk:
        """Encode a chunk.

        Raises:
            UserError: If a conversation cannot be encoded and `on_invalid` is `error`.
        """
        ledger = Ledger(self.on_invalid)
        examples: list[Example] = []
        hashes: list[int] = []
        for conversation in chunk:
            samples = expand_answers(conversation) if self.samples == "answer" else [conversation]
            ledger.samples_added += len(samples) - 1
            number = hash_of(content_key(conversation))
            for sample in samples:
                examples += self._encode(sample, ledger)
            hashes += [number] * (len(examples) - len(hashes))
        return EncodedChunk(len(chunk), record_batch(examples, hashes), ledger)

    def _encode(self, sample: Conversation, ledger: Ledger) -> list[Example]:
        try:
            return self.encoder.encode(sample, ledger)
        except OverLongError:
            raise
        except UserError as error:
            ledger.reject(str(error))
            return []


class ChunkPool(Generic[AnyChunk, Result]):
    """Encodes chunks in order; starts processes once there are enough of them.

    Args:
        encode: Encodes a chunk. Sent to every process once.
        processes: Maximum number of processes. 1: encode in this process.
        size: Number of characters of a chunk.
    """

    def __init__(
        self, encode: Callable[[AnyChunk], Result], processes: int, size: Callable[[AnyChunk], int] = lambda _: 0
    ) -> None:
        self.encode, self.processes, self._size = encode, processes, size
        self._executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)

    def run_chunks(self, chunks: Iterator[AnyChunk]) -> Iterator[Result]:
        """Encode chunks. The first error in order is raised, however far ahead reading is.

        Raises:
            ChildProcessError: If a process died.
        """
        yield from map(self.encode, islice(chunks, self._num_chunks_alone))
        first = next(chunks, None)
        if first is not None:
            self._executor = self._executor or _start(self.encode, self.processes)
            yield from self._side_by_side(self._executor, chain([first], chunks))

    @property
    def _num_chunks_alone(self) -> int | None:
        if self.processes == 1:
            return None
        return 0 if self._executor else _CHUNKS_ALONE

    def _side_by_side(self, executor: ProcessPoolExecutor, chunks: Iterable[AnyChunk]) -> Iterator[Result]:
        pending: deque[tuple[Future[Result], int]] = deque()
        ahead = 0
        for future, size in self._submitted(executor, chunks):
            pending.append((future, size))
            ahead += size
            while len(pending) == _CHUNKS_AHEAD * self.processes or (ahead > _CHARACTERS_AHEAD and pending):
                first, size = pending.popleft()
                ahead -= size
                yield self._result(first)
        while pending:
            yield self._result(pending.popleft()[0])

    def _submitted(
        self, executor: ProcessPoolExecutor, chunks: Iterable[AnyChunk]
    ) -> Iterator[tuple[Future[Result], int]]:
        """Submit each chunk. If reading fails, yield a failed future, so that errors are raised in order."""
        try:
            for chunk in chunks:
                yield executor.submit(_encode_in_child, chunk), self._size(chunk)
        except Exception as error:
            failed: Future[Result] = Future()
            failed.set_exception(error)
            yield failed, 0

    def _result(self, future: Future[Result]) -> Result:
        try:
            return future.result()
        except BrokenProcessPool:
            raise ChildProcessError(
                f"one of {self.processes} encoding processes died: out of memory, or failed to start. "
                "Set `--data.encoding_processes 1`, or a lower number. In your own script, start the work under "
                "`if __name__ == '__main__':`."
            ) from None


class EncodingPool(ChunkPool[Chunk, EncodedChunk]):
    """Encodes conversations in order.

    Args:
        encode: Encodes a chunk.
        processes: Maximum number of processes. 1: encode in this process.
    """

    def __init__(self, encode: ChunkEncoder, processes: int) -> None:
        super().__init__(encode, processes)

    def run(self, conversations: Iterable[Conversation]) -> Iterator[EncodedChunk]:
        """Encode conversations. The first error in file order is raised, however far ahead reading is.

        Raises:
            UserError: If one cannot be read or encoded and `on_invalid` is `error`.
            ChildProcessError: If a process died.
        """
        return self.run_chunks(_chunks(conversations))


def num_processes(wanted: int | None) -> int:
    """The number of encoding processes.

    Args:
        wanted: None: one per core available to this process, at most 16.

    Raises:
        UserError: If `wanted` is less than 1.
    """
    if wanted is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(cores, _MOST_PROCESSES)
    if wanted < 1:
        raise UserError(f"--data.encoding_processes {wanted}: expected at least 1.")
    return wanted


def _chunks(conversations: Iterable[Conversation]) -> Iterator[Chunk]:
    chunk: Chunk = []
    size = 0
    try:
        for conversation in conversations:
            chunk.append(conversation)
            size += conversation.num_characters
            if len(chunk) == _CHUNK_CONVERSATIONS or size >= _CHUNK_CHARACTERS:
                yield chunk
                chunk, size = [], 0
    except Exception:
        yield chunk  # precedes the unreadable record, and may contain an earlier error
        raise
    if chunk:
        yield chunk


def _start(encode: Callable[[Any], Any], processes: int) -> ProcessPoolExecutor:
    # not forked: torch, the tokenizer and Lightning have threads by now, and a fork could inherit their locks
    return ProcessPoolExecutor(
        processes, get_context("spawn"), initializer=_begin_child, initargs=(pickle.dumps(encode),)
    )


_encode_of_child: Callable[[Any], Any]
"""Set once in each process of the pool at startup."""


def _begin_child(pickled: bytes) -> None:
    global _encode_of_child
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent stops the others
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # every core already has a process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _encode_of_child = pickle.loads(pickled)


def _end_with_parent() -> None:
    """Exit with the parent; otherwise a process whose parent was killed would wait for work forever."""
    parent = parent_process()
    assert parent is not None  # the pool started this process
    wait([parent.sentinel])
    os._exit(1)


def _encode_in_child(chunk: Any) -> Any:
    return _encode_of_child(chunk)
