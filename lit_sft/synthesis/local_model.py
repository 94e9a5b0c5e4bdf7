"""A local model as the generator: requests of many threads are answered in batches."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
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
        self._has_ended = False
        self._lock = threading.Lock()
        threading.Thread(target=self._run, name="local model", daemon=True).start()

    def ask(self, request: Request) -> Reply:
        """Reply to a request. Its schema is not enforced.

        Raises:
            EndpointError: If it is too long for the model.
            NotSentError: If `close` was called.
        """
        future: Future[Reply] = Future()
        with self._lock:
            if self._has_ended:
                raise NotSentError("not sent: stopped")
            self._waiting.put((request, future))
        return future.result()

    def close(self) -> None:
        """Refuse all requests that are not being answered yet, and new ones."""
        with self._lock:
            self._has_ended = True
            self._waiting.put(None)

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch = [first]
            while len(batch) < self.batch_size and not self._waiting.empty():
                if (other := self._waiting.get()) is None:
                    self._waiting.put(None)
                    break
                batch.append(other)
            self._answer(batch)
        while not self._waiting.empty():
            if (left := self._waiting.get()) is not None:
                left[1].set_exception(NotSentError("not sent: stopped"))

    def _answer(self, batch: Sequence[_Waiting]) -> None:
        """Answer requests together that sample alike."""
        groups: dict[tuple[int, float, float, int], list[tuple[list[int], Future[Reply]]]] = {}
        for request, future in batch:
            if self._has_ended:
                future.set_exception(NotSentError("not sent: stopped"))
                continue
            try:
                ids = self._encoded(request)
            except Exception as error:  # the thread that asked gets it
                is_users = isinstance(error, UserError)
                future.set_exception(EndpointError(str(error), is_answer=True) if is_users else error)
                continue
            key = (request.max_tokens, request.temperature, request.top_p, request.seed or 0)
            groups.setdefault(key, []).append((ids, future))
        for (max_tokens, temperature, top_p, seed), group in groups.items():
            settings = GenerationSettings(max_tokens, temperature, top_p, self.batch_size)
            try:
                answers = self.model.answer([ids for ids, _ in group], settings, seed)
            except BaseException as error:
                for _, future in group:
                    future.set_exception(error)
                continue
            for (ids, future), answer in zip(group, answers, strict=True):
                future.set_result(_reply(ids, answer))

    def _encoded(self, request: Request) -> list[int]:
        turns = tuple(Message(Role(role), content) for role, content in request.messages)
        (example,) = self.encoder.encode(Conversation(turns, "the request"))
        return list(map(int, example.prompt_ids()))


def _reply(ids: list[int], answer: Generated) -> Reply:
    return Reply(answer.text, len(ids), answer.num_tokens, "stop" if answer.ended else "length")
