"""A model in a thread of its own: loaded when first needed, answers the requests of many threads in batches.

    submit -> waiting (bounded) -> a batch -> pieces to the request's listener -> PendingAnswer.future

A batch is what waits when the batch before it is finished. An answer is reported as soon as it is finished itself.
"""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Generic, TypeVar

from data_modules.encoding.encoder import Encoder
from data_modules.wording import counted
from lit_sft.models.generation import Generated, GenerationRequest, room_for_answer
from lit_sft.models.loaded import LoadedModel
from lit_sft.models.unfinished import Piece

_Value = TypeVar("_Value")
_AnyPending = TypeVar("_AnyPending", bound="Pending[Any]")

_GATHERING_SECONDS = 0.05
"""How long a batch waits for the clients of the last one, whose next requests are on their way."""


class BusyError(Exception):
    """Too many requests are waiting already."""


class ClosedError(Exception):
    """The worker was closed before there was an answer."""


class Pending(Generic[_Value]):
    """Work that was submitted.

    Attributes:
        future: Has the result, or the error that prevented it; a `ClosedError` if the worker was closed. Cancelling the
            future has no effect.
    """

    def __init__(self) -> None:
        self.future: Future[_Value] = Future()
        self.future.set_running_or_notify_cancel()  # asyncio would cancel it with a task that waits for it
        self._is_cancelled = threading.Event()

    def cancel(self) -> None:
        """Have it ended as soon as possible."""
        self._is_cancelled.set()

    def is_to_stop(self) -> bool:
        """Whether it was cancelled, or has failed."""
        return self._is_cancelled.is_set() or self.future.done()

    def result(self, timeout_seconds: float | None = None) -> _Value:
        """Wait for the result.

        Raises:
            TimeoutError: If there is none in time.
            Exception: As described for `future`.
        """
        return self.future.result(timeout_seconds)

    def fail(self, error: BaseException) -> None:
        """Report an error; without effect after the result."""
        if not self.future.done():
            self.future.set_exception(error)

    def drop(self) -> None:
        """Report that it was cancelled while it waited."""
        self.fail(CancelledError("cancelled"))


class PendingAnswer(Pending[Generated]):
    """A request that was submitted.

    `cancel` ends the answer after the token that is being made. What there is of it is the result, `is_cancelled`. The
    error in `future` may also be what the listener raised, or a `UserError` if the prompt is too long.

    Args:
        request: As submitted, without `when_answered`: the future has the answer.
    """

    def __init__(self, request: GenerationRequest) -> None:
        assert request.when_answered is None
        super().__init__()
        self._asked = request
        self.request = replace(
            request,
            listener=self._tell if request.listener else None,
            is_cancelled=self.is_to_stop,
            when_answered=self.finish,
        )

    def finish(self, answer: Generated) -> None:
        """Report the answer; without effect after the first result."""
        if not self.future.done():
            self.future.set_result(answer)

    def is_to_stop(self) -> bool:
        """Whether it was cancelled, or has failed."""
        asked = self._asked.is_cancelled
        try:
            return super().is_to_stop() or bool(asked and asked())
        except Exception as error:
            self.fail(error)
            return True

    def drop(self) -> None:
        """Report that it was cancelled while it waited."""
        self.finish(_NOT_BEGUN)

    def _tell(self, piece: Piece) -> None:
        assert self._asked.listener is not None
        if self.future.done():
            return
        try:
            self._asked.listener(piece)
        except Exception as error:  # its listener's own mistake, which must not end the answers of others
            self.fail(error)


class PendingTask(Pending[_Value]):
    """Work with the model between two batches.

    Args:
        work: Is given the model.
    """

    def __init__(self, work: Callable[[LoadedModel], _Value]) -> None:
        super().__init__()
        self._work = work

    def run(self, model: LoadedModel) -> None:
        """Do it and report the result, unless it was cancelled."""
        if self.is_to_stop():
            self.drop()
            return
        try:
            self.future.set_result(self._work(model))
        except BaseException as error:
            self.fail(error)


class ModelWorker:
    """Answers the requests of many threads with one model, in its own thread. Thread-safe.

    Args:
        load: Loads the model; called in the worker's thread, once. Called again for the next request if it fails.
        name: Of the model, for the name of the thread.
        batch_size: Requests in a batch, at most.
        max_waiting: Requests that may wait, besides the batch that is being answered.
    """

    def __init__(
        self, load: Callable[[], LoadedModel], *, name: str = "", batch_size: int = 16, max_waiting: int = 64
    ) -> None:
        self.name, self.batch_size, self.max_waiting = name, batch_size, max_waiting
        self._load = load
        self._changed = threading.Condition()
        self._waiting: deque[Pending[Any]] = deque()
        self._running: list[Pending[Any]] = []
        self._thread: threading.Thread | None = None
        self._loading: Future[LoadedModel] | None = None
        self._is_closed = False
        self._encoder: Encoder | None = None
        self._encoding = threading.Lock()

    @property
    def num_waiting(self) -> int:
        """Requests that wait, except cancelled ones."""
        with self._changed:
            return sum(not pending.is_to_stop() for pending in self._waiting)

    @property
    def num_running(self) -> int:
        """Requests that are being answered."""
        with self._changed:
            return sum(not pending.future.done() for pending in self._running)

    @property
    def is_loaded(self) -> bool:
        """Whether the model is in memory."""
        loading = self._loading
        return loading is not None and loading.done() and loading.exception() is None

    def load(self) -> Future[LoadedModel]:
        """Load the model, unless that was done before.

        Returns:
            Has the model, or the error that prevented loading it. Cancelling the future has no effect.

        Raises:
            ClosedError: If the worker is closed.
        """
        with self._changed:
            return self._started()

    def submit(self, request: GenerationRequest) -> PendingAnswer:
        """Have a request answered. The model is loaded if it is not yet.

        Its listener is called in the worker's thread; an error in it ends this answer only.

        Raises:
            BusyError: If too many requests are waiting.
            ClosedError: If the worker is closed.
        """
        return self._queued(PendingAnswer(request))

    def run(self, work: Callable[[LoadedModel], _Value]) -> PendingTask[_Value]:
        """Have something else done with the model, in the worker's thread, before the next batch.

        Raises:
            BusyError: If too many requests are waiting.
            ClosedError: If the worker is closed.
        """
        return self._queued(PendingTask(work))

    def _queued(self, pending: _AnyPending) -> _AnyPending:
        with self._changed:
            self._started()
            dropped = [each for each in self._waiting if each.is_to_stop()]  # they take up no place
            self._waiting = deque(each for each in self._waiting if each not in dropped)
            is_full = len(self._waiting) >= self.max_waiting
            if not is_full:
                self._waiting.append(pending)
                self._changed.notify_all()
        for each in dropped:
            each.drop()
        if is_full:
            raise BusyError(f"{counted(self.max_waiting, 'request')} waiting already")
        return pending

    @contextmanager
    def encoding(self) -> Iterator[Encoder]:
        """The model's encoder, for one thread at a time; it does not wait for answers. Loads the model if necessary.

        Raises:
            Exception: If the model cannot be loaded.
        """
        model = self.load().result()
        with self._encoding:
            if self._encoder is None:
                # fast tokenizers have state, which encoding changes while the worker's thread decodes
                self._encoder = replace(model.encoder, tokenizer=copy.deepcopy(model.tokenizer))
            yield self._encoder

    def close(self, timeout_seconds: float | None = None) -> None:
        """Cancel everything, refuse new requests, and wait until the thread has ended.

        Args:
            timeout_seconds: The longest to wait. None: as long as the token that is being made takes.
        """
        with self._changed:
            self._is_closed = True
            waiting, thread = [*self._waiting], self._thread
            self._waiting.clear()
            for pending in self._running:
                pending.cancel()
            self._changed.notify_all()
        for pending in waiting:
            pending.fail(ClosedError("closed"))
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_seconds)

    def _started(self) -> Future[LoadedModel]:
        """Start the thread, or a new one if loading failed. The caller holds the lock."""
        if self._is_closed:
            raise ClosedError("closed")
        if self._loading is None:
            self._loading = Future()
            self._loading.set_running_or_notify_cancel()
            arguments = (self._loading,)
            self._thread = threading.Thread(target=self._run, args=arguments, name=f"model {self.name}", daemon=True)
            self._thread.start()
        return self._loading

    def _run(self, loading: Future[LoadedModel]) -> None:
        try:
            model = self._load()
        except BaseException as error:
            self._fail(loading, error)
            return
        loading.set_result(model)
        expected = 0
        while batch := self._next_batch(expected):
            self._answer(model, batch)
            expected = len(batch) + self.num_waiting
            del batch  # or the last answers would be kept until the next request
        with self._changed:
            self._running = []

    def _fail(self, loading: Future[LoadedModel], error: BaseException) -> None:
        """Report that the model cannot be loaded to all who wait for it. The next request loads it again."""
        with self._changed:
            waiting = [*self._waiting]
            self._waiting.clear()
            self._loading = None
        loading.set_exception(error)
        for pending in waiting:
            pending.fail(error)

    def _next_batch(self, expected: int) -> list[Pending[Any]]:
        """Wait for requests.

        Args:
            expected: Requests for which it is worth waiting a moment.

        Returns:
            At most a batch; none if the worker was closed.
        """
        expected = min(expected, self.batch_size)
        with self._changed:
            self._running = []
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            self._changed.wait_for(lambda: len(self._waiting) >= expected or self._is_closed, _GATHERING_SECONDS)
            if not self._is_closed:
                self._running = [self._waiting.popleft() for _ in range(min(self.batch_size, len(self._waiting)))]
            return self._running

    def _answer(self, model: LoadedModel, batch: list[Pending[Any]]) -> None:
        for task in batch:
            if isinstance(task, PendingTask):
                task.run(model)
        answers = [pending for pending in batch if isinstance(pending, PendingAnswer) and _fits(model, pending)]
        try:
            requests = [pending.request for pending in answers]
            made = model.answer_requests(requests, self.batch_size) if requests else []
        except BaseException as error:
            for pending in answers:
                pending.fail(error)
            return
        for pending, answer in zip(answers, made, strict=True):
            pending.finish(answer)  # those that were cancelled before they were begun


_NOT_BEGUN = Generated("", 0, ended=False, is_cancelled=True)


def _fits(model: LoadedModel, pending: PendingAnswer) -> bool:
    """Whether there is room for an answer; without, the request has failed."""
    request = pending.request
    try:
        room_for_answer(model.backbone, len(request.prompt), request.settings.max_new_tokens)
    except Exception as error:
        pending.fail(error)
        return False
    return True
