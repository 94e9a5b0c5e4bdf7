"""A local model as the generator: requests of many threads are answered in batches."""

from __future__ import annotations

import sys
from dataclasses import replace

from data_modules.errors import UserError
from data_modules.records.conversation import Conversation, Message, Role
from lit_sft.endpoint.chat import EndpointError, NotSentError, Reply, Request
from lit_sft.models.generation import GenerationRequest, GenerationSettings
from lit_sft.models.loaded import LoadedModel
from lit_sft.models.worker import ClosedError, ModelWorker


class LocalModel:
    """Replies to requests with a model in this process. Thread-safe; a reply does not depend on the batch.

    Args:
        model: The model.
        batch_size: Requests in a batch, at most.
    """

    def __init__(self, model: LoadedModel, batch_size: int) -> None:
        self.model = model
        # no bound on the queue: those who ask wait for their replies
        self._worker = ModelWorker(lambda: model, name="synthesis", batch_size=batch_size, max_waiting=sys.maxsize)

    def ask(self, request: Request) -> Reply:
        """Reply to a request. Its schema is not enforced.

        Raises:
            EndpointError: If it is too long for the model.
            NotSentError: If `close` was called before there was a reply.
        """
        settings = GenerationSettings(request.max_tokens, request.temperature, request.top_p)
        try:
            ids = self._encoded(request)
            answer = self._worker.submit(GenerationRequest(ids, settings, request.seed or 0)).result()
        except ClosedError:
            raise NotSentError("not sent: stopped") from None
        except UserError as error:
            raise EndpointError(str(error), is_answer=True) from None
        if answer.is_cancelled:
            raise NotSentError("cancelled: stopped")
        return Reply(answer.text, len(ids), answer.num_tokens, "stop" if answer.ended else "length")

    def close(self) -> None:
        """Cancel all requests and refuse new ones. A batch under way ends with the token that is being made."""
        self._worker.close(timeout_seconds=0)

    def _encoded(self, request: Request) -> list[int]:
        turns = tuple(Message(Role(role), content) for role, content in request.messages)
        with self._worker.encoding() as shared:
            encoder = replace(shared, max_length=self.model.context_length - 1, over_long="error")
            (example,) = encoder.encode(Conversation(turns, "the request"))
        return list(map(int, example.prompt_ids()))
