"""A local model as the generator: requests of many threads are answered in batches."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import suppress
from dataclasses import replace
from queue import SimpleQueue

from data_modules.errors import UserError
from data_modules.records.conversation import Conversation, Message, Role
from lit_sft.endpoint.chat import EndpointError, NotSentError, Reply, Request
from lit_sft.models.generation import Generated, GenerationSettings
from lit_sft.models.loaded import LoadedModel

_Waiting = tuple[Request, Future[Reply]]


class LocalModel:
    """Replies to requests with a model in this process. Thread-safe; a reply does not depend on the batch.

    Args:
        model: The model.
        batch_size: Requests in a batch, at most.
    """

    def __init__(self, model: LoadedModel, batch_size: int) -> None:
        self.model, self.batch_size = model, batch_size
        # only one thread uses the model: fast tokenizers have state that threads share
        self.encoder = replace(model.encoder, max_length=model.context_length - 1, over_long="error")
        self._waiting: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._open: set[Future[Reply]] = set()
        self._has_ended = False
        self._lock = threading.Lock()
        threading.Thread(target=self._run, name="local model", daemon=True).start()

    def ask(self, request: Request) -> Reply:
        """Reply to a request. Its schema is not enforced.

        Raises:
            EndpointError: If it is too long for the model.
            NotSentError: If `close` was called before there was a reply.
        """
        future: Future[Reply] = Future()
        with self._lock:
            if self._has_ended:
                raise NotSentError("not sent: stopped")
            self._open.add(future)
            self._waiting.put((request, future))
        try:
            return future.result()
        except CancelledError:
            raise NotSentError("cancelled: stopped") from None
        finally:
            with self._lock:
                self._open.discard(future)

    def close(self) -> None:
        """Cancel all requests and refuse new ones. A batch under way ends in its thread; nobody waits for it."""
        with self._lock:
            self._has_ended = True
            self._waiting.put(None)
            for future in self._open:
                future.cancel()

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch = [first]
            while len(batch) < self.batch_size and not self._waiting.empty():
                if (other := self._waiting.get()) is None:
                    return
                batch.append(other)
            self._answer(batch)

    def _answer(self, batch: Sequence[_Waiting]) -> None:
        """Answer requests together that sample alike."""
        groups: dict[tuple[int, float, float, int], list[tuple[list[int], Future[Reply]]]] = {}
        for request, future in batch:
            try:
                ids = self._encoded(request)
            except Exception as error:  # the thread that asked gets it
                is_users = isinstance(error, UserError)
                _fail(future, EndpointError(str(error), is_answer=True) if is_users else error)
                continue
            key = (request.max_tokens, request.temperature, request.top_p, request.seed or 0)
            groups.setdefault(key, []).append((ids, future))
        for (max_tokens, temperature, top_p, seed), group in groups.items():
            settings = GenerationSettings(max_tokens, temperature, top_p, self.batch_size)
            try:
                answers = self.model.answer([ids for ids, _ in group], settings, seed)
            except BaseException as error:
                for _, future in group:
                    _fail(future, error)
                continue
            for (ids, future), answer in zip(group, answers, strict=True):
                with suppress(InvalidStateError):  # cancelled
                    future.set_result(_reply(ids, answer))

    def _encoded(self, request: Request) -> list[int]:
        turns = tuple(Message(Role(role), content) for role, content in request.messages)
        (example,) = self.encoder.encode(Conversation(turns, "the request"))
        return list(map(int, example.prompt_ids()))


def _fail(future: Future[Reply], error: BaseException) -> None:
    with suppress(InvalidStateError):  # cancelled
        future.set_exception(error)


def _reply(ids: list[int], answer: Generated) -> Reply:
    return Reply(answer.text, len(ids), answer.num_tokens, "stop" if answer.ended else "length")
