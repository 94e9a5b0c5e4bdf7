"""Answers jobs: whole, or piece by piece. What nobody waits for any more is cancelled."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from data_modules.wording import counted
from lit_sft.models.generation import Generated, GenerationRequest
from lit_sft.models.loaded import LoadedModel
from lit_sft.models.next_token import TokenLogprob
from lit_sft.models.prompt_logprobs import prompt_logprobs
from lit_sft.models.unfinished import Piece
from lit_sft.models.worker import BusyError, ClosedError, Pending, PendingAnswer
from lit_sft.serve.errors import ApiError, failed, overloaded, stopping
from lit_sft.serve.forms import event, finish_reason, usage_of
from lit_sft.serve.jobs import Job
from lit_sft.serve.logprobs import Reported, starts_of

_NOTHING = Generated("", 0, ended=False)
"""The answer to a request for no tokens."""

Receive = Callable[[], Awaitable[Any]]


class ClientGoneError(Exception):
    """The client closed the connection before the answer was finished."""


async def answer(job: Job, receive: Receive) -> tuple[dict[str, Any], list[Generated]]:
    """Answer a job.

    Args:
        job: What to answer.
        receive: Tells when the client goes; all answers are cancelled then.

    Returns:
        The body of the response, and the answers.

    Raises:
        ApiError: If too many requests are waiting, or the model fails.
        ClientGoneError: If the client went.
    """
    pending: list[Pending[Any]] = [*_submitted(job, job.requests)]
    is_over = threading.Event()
    tasks: list[asyncio.Task[Any]] = [asyncio.ensure_future(_gone(receive))]
    try:
        pending += _scored(job, is_over)
        everything = asyncio.ensure_future(_results(pending))
        tasks.append(everything)
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not everything.done():
            raise ClientGoneError
        results = everything.result()
    finally:
        for task in tasks:
            task.cancel()
        is_over.set()
        for each in pending:
            each.cancel()
    answers, scored = results[: len(job.requests)], results[len(job.requests) :]
    made, scores = answers or [_NOTHING] * job.num_choices, scored[0] if scored else []
    choices = _echoed(job, made, scores) if job.echoes else [_choice(job, *each) for each in enumerate(made)]
    return job.form.whole(choices, usage_of(job.num_prompt_tokens, answers)), answers


async def stream(job: Job, receive: Receive, answers: list[Generated]) -> AsyncIterator[str]:
    """Answer a job piece by piece.

    Args:
        job: What to answer.
        receive: Tells when the client goes; all answers are cancelled then.
        answers: Collects the finished answers.

    Yields:
        Server-sent events; the last may be an error.

    Raises:
        ApiError: Before the first event, if too many requests are waiting.
        ClientGoneError: If the client went.
    """
    news: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()
    pending = _submitted(job, _heard(job, news))
    gone = asyncio.ensure_future(_gone(receive))
    gone.add_done_callback(lambda _: news.put_nowait((-1, ClientGoneError())))
    try:
        for index, each in enumerate(pending):
            each.future.add_done_callback(_posting(news, index))
            if opening := job.form.opening(index):
                yield opening
        async for part in _events(job, news, answers):
            yield part
    finally:
        gone.cancel()
        for each in pending:
            each.cancel()


async def _events(job: Job, news: asyncio.Queue[tuple[int, Any]], answers: list[Generated]) -> AsyncIterator[str]:
    tokens = [job.reported_tokens() for _ in job.requests]
    while len(answers) < len(job.requests):
        index, item = await news.get()
        if isinstance(item, ClientGoneError):
            raise item
        if isinstance(item, Piece):
            reported = tokens[index].add(item.text, item.logprobs)
            if item.text or reported:
                yield job.form.piece(index, item.text, reported)
            continue
        try:
            answers.append(_whole(item))
        except ApiError as error:
            yield event(error.body())
            raise
        if rest := tokens[index].rest(is_stopped=item.result().stopped_by is not None):
            yield job.form.piece(index, "", rest)
        yield job.form.ending(index, finish_reason(answers[-1]))
    if not job.requests:
        for index in range(job.num_choices):
            yield job.form.ending(index, finish_reason(_NOTHING))
    yield job.form.final(usage_of(job.num_prompt_tokens, answers))


def _submitted(job: Job, requests: Sequence[GenerationRequest]) -> list[PendingAnswer]:
    """Submit all requests, or none.

    Raises:
        ApiError: If too many requests are waiting.
    """
    pending: list[PendingAnswer] = []
    try:
        for request in requests:
            pending.append(job.worker.submit(request))
    except (BusyError, ClosedError) as error:
        for each in pending:
            each.cancel()
        raise _refused(job, error) from None
    return pending


def _scored(job: Job, is_over: threading.Event) -> list[Pending[Any]]:
    """Have the prompts scored, if they are part of the answer with their log-probabilities; nothing otherwise.

    Args:
        job: What to answer.
        is_over: Set when nobody waits for the scores any more.

    Raises:
        ApiError: If too many requests are waiting.
    """
    count = job.asked.num_likeliest
    if not job.echoes or count is None:
        return []

    def scores(model: LoadedModel) -> list[Any]:
        return [prompt_logprobs(model, ids, count) for ids in job.prompts if not is_over.is_set()]

    try:
        return [job.worker.run(scores)]
    except (BusyError, ClosedError) as error:
        raise _refused(job, error) from None


def _refused(job: Job, error: Exception) -> ApiError:
    if isinstance(error, ClosedError):
        return stopping()
    return overloaded(
        f"The model `{job.worker.name}` is busy: it would have to queue more than "
        f"{counted(job.worker.max_waiting, 'answer')}. Try again later."
    )


async def _gone(receive: Receive) -> None:
    """Wait until the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _results(pending: Sequence[Pending[Any]]) -> list[Any]:
    try:
        results = await asyncio.gather(*(asyncio.wrap_future(each.future) for each in pending))
    except Exception as error:
        raise _failure(error) from error
    for each in results:
        if isinstance(each, Generated) and each.is_cancelled:
            raise stopping()
    return results


def _whole(future: Future[Generated]) -> Generated:
    """The answer.

    Raises:
        ApiError: If there is none.
    """
    error = future.exception()
    if error is not None:
        raise _failure(error) from error
    if future.result().is_cancelled:
        raise stopping()
    return future.result()


def _failure(error: BaseException) -> ApiError:
    if isinstance(error, ClosedError):
        return stopping()
    return failed("The model failed to answer; the server's log says why.")


def _heard(job: Job, news: asyncio.Queue[tuple[int, Any]]) -> list[GenerationRequest]:
    """The requests, with listeners that pass on the pieces to this thread's event loop."""
    loop = asyncio.get_running_loop()

    def listening(index: int) -> Callable[[Piece], None]:
        return lambda piece: _post(loop, news, (index, piece))

    return [replace(each, listener=listening(index)) for index, each in enumerate(job.requests)]


def _posting(news: asyncio.Queue[tuple[int, Any]], index: int) -> Callable[[Future[Generated]], None]:
    loop = asyncio.get_running_loop()
    return lambda future: _post(loop, news, (index, future))


def _post(loop: asyncio.AbstractEventLoop, news: asyncio.Queue[tuple[int, Any]], item: tuple[int, Any]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(news.put_nowait, item)


def _choice(job: Job, index: int, made: Generated) -> dict[str, Any]:
    return job.form.choice(index, made.text, _reported(job, made), finish_reason(made))


def _reported(job: Job, made: Generated) -> list[Reported]:
    tokens = job.reported_tokens()
    return tokens.add(made.text, made.logprobs) + tokens.rest(is_stopped=made.stopped_by is not None)


def _echoed(job: Job, answers: Sequence[Generated], scores: Sequence[Any]) -> list[dict[str, Any]]:
    """The choices of completions that begin with their prompts."""
    choices = []
    for index, made in enumerate(answers):
        place = index // job.asked.num_choices
        tokens = _scored_tokens(job, place, scores[place], made) if scores else []
        choices.append(job.form.choice(index, job.echoes[place] + made.text, tokens, finish_reason(made)))
    return choices


def _scored_tokens(job: Job, place: int, scored: Sequence[TokenLogprob | None], made: Generated) -> list[Reported]:
    """The tokens of a prompt and of its answer."""
    answered = _reported(job, made)
    ids = job.prompts[place] + [each.id for each in answered]
    starts = starts_of(ids, job.form.bytes_of)
    found = [*scored, *(each.logprob for each in answered)]
    return [Reported(*each) for each in zip(starts, ids, found, strict=True)]
