"""A request ready to be answered: its prompts as token ids, and how each answer is made."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from data_modules.encoding.tokenizers import bytes_of_tokens
from data_modules.errors import UserError
from lit_sft.models.generation import GenerationRequest, GenerationSettings
from lit_sft.models.loaded import LoadedModel
from lit_sft.models.text_stream import text_of
from lit_sft.models.worker import ClosedError, ModelWorker
from lit_sft.serve.asked import Asked, AskedChat, AskedCompletion
from lit_sft.serve.errors import ApiError, failed, invalid, stopping
from lit_sft.serve.forms import Form, Kind
from lit_sft.serve.logprobs import ReportedTokens
from lit_sft.serve.prompts import ids_of_chat, ids_of_text, room_for

_USUAL_COMPLETION = 16
"""Tokens of a completion that sets no limit, as in the API."""


@dataclass(frozen=True, slots=True)
class Job:
    """What to answer, and how.

    Attributes:
        worker: Answers.
        model: Loaded.
        asked: What the request asks for.
        form: Writes the answers.
        prompts: Token ids of each prompt.
        requests: One for each answer, those of one prompt in a row; none if no tokens are wanted.
        echoes: The text of each prompt, if it is part of the answer.
    """

    worker: ModelWorker
    model: LoadedModel
    asked: Asked
    form: Form
    prompts: list[list[int]]
    requests: list[GenerationRequest]
    echoes: list[str]

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of all prompts."""
        return sum(map(len, self.prompts))

    @property
    def num_choices(self) -> int:
        """Answers to all prompts, also if no tokens are wanted."""
        return len(self.prompts) * self.asked.num_choices

    def reported_tokens(self) -> ReportedTokens:
        """Finds the tokens to report of one answer. As in the API, the end token is part of completions only."""
        hidden = self.model.encoder.end_token_id if self.form.kind == "chat" else None
        return ReportedTokens(self.form.bytes_of, hidden)


async def loaded(worker: ModelWorker) -> LoadedModel:
    """Wait until a model is loaded.

    Raises:
        ApiError: If it cannot be. The reason may name files of this machine, so it is only logged.
    """
    try:
        return await asyncio.wrap_future(worker.load())
    except ClosedError:
        raise stopping() from None
    except Exception as error:
        raise failed(f"The model `{worker.name}` could not be loaded; the server's log says why.") from error


async def chat_job(worker: ModelWorker, body: AskedChat, usual_length: int) -> Job:
    """Prepare a chat completion.

    Raises:
        ApiError: If the model cannot be loaded, or the conversation does not fit into it.
    """
    model = await loaded(worker)
    return await asyncio.to_thread(_chat_job, worker, model, body, usual_length)


async def completion_job(worker: ModelWorker, body: AskedCompletion) -> Job:
    """Prepare completions.

    Raises:
        ApiError: If the model cannot be loaded, or a prompt does not fit into it.
    """
    model = await loaded(worker)
    return await asyncio.to_thread(_completion_job, worker, model, body)


def _chat_job(worker: ModelWorker, model: LoadedModel, body: AskedChat, usual_length: int) -> Job:
    with worker.encoding() as encoder:
        prompt = ids_of_chat(encoder, body.turns, model.context_length)
    room = room_for(model, prompt, body.asked.max_tokens, usual_length, "messages")
    return _job(worker, model, body.asked, "chat", [(prompt, room)], [])


def _completion_job(worker: ModelWorker, model: LoadedModel, body: AskedCompletion) -> Job:
    prompts = []
    for index, prompt in enumerate(body.prompts):
        place = "prompt" if len(body.prompts) == 1 else f"prompt[{index}]"
        with worker.encoding() as encoder:
            ids = ids_of_text(encoder, model, prompt, place)
        prompts.append((ids, room_for(model, ids, body.asked.max_tokens, _USUAL_COMPLETION, "prompt")))
    echoes = []
    if body.has_echo:
        pairs = zip(body.prompts, prompts, strict=True)
        echoes = [each if isinstance(each, str) else text_of(model.tokenizer, ids) for each, (ids, _) in pairs]
    return _job(worker, model, body.asked, "completion", prompts, echoes)


def _job(
    worker: ModelWorker,
    model: LoadedModel,
    asked: Asked,
    kind: Kind,
    prompts: Sequence[tuple[list[int], int]],
    echoes: list[str],
) -> Job:
    seed = secrets.randbits(62) if asked.seed is None else asked.seed
    try:
        requests = [
            GenerationRequest(
                ids,
                GenerationSettings(room, asked.temperature, asked.top_p),
                seed + number,
                stop=asked.stop,
                num_likeliest=asked.num_likeliest,
            )
            for ids, room in prompts
            for number in range(asked.num_choices)
            if room
        ]
    except UserError as error:
        raise invalid(None, str(error)) from None
    num_places = worker.max_waiting - bool(echoes)  # one to score the prompts
    if len(requests) > num_places:
        raise ApiError(
            400,
            f"This request asks for {len(requests)} answers; this server queues at most {num_places}. Send fewer "
            "prompts at a time, or lower 'n'.",
            "n" if len(prompts) == 1 else "prompt",
            "invalid_value",
        )
    form = Form(kind, asked.model, bytes_of_tokens(model.tokenizer), asked.num_likeliest, asked.has_usage)
    return Job(worker, model, asked, form, [ids for ids, _ in prompts], requests, echoes)
