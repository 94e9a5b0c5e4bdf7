"""The server as an ASGI application: paths, errors, the log and the metrics."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from data_modules.wording import reason_of
from lit_sft.models.generation import Generated
from lit_sft.serve.access import Guard
from lit_sft.serve.answering import ClientGoneError, answer, stream
from lit_sft.serve.asked import read_chat, read_completion
from lit_sft.serve.body import parse_body, too_large
from lit_sft.serve.errors import ApiError, failed, stopping
from lit_sft.serve.forms import event
from lit_sft.serve.jobs import Job, chat_job, completion_job
from lit_sft.serve.metrics import Metrics
from lit_sft.serve.served import ServedModels

_CLIENT_GONE = 499
"""What servers log when a client went before it had its answer."""

_BUG = failed("The server failed; its log says why.")

Log = Callable[[str], None]


def build_app(models: ServedModels, *, log: Log, key: str = "", host: str = "127.0.0.1") -> Starlette:
    """Build the application.

    Args:
        models: What it serves; the caller closes them.
        log: Prints a line about each request, and about errors. It is given no prompt, no answer and no key.
        key: What clients must send; empty for none.
        host: The address that the server listens on.
    """
    server = _Server(models, Metrics(models), log)

    return Starlette(
        routes=[
            Route("/v1/models", server.list_models),
            Route("/v1/models/{name:path}", server.show_model),
            Route("/v1/chat/completions", partial(server.answer, True), methods=["POST"]),
            Route("/v1/completions", partial(server.answer, False), methods=["POST"]),
            Route("/health", server.health),
            Route("/metrics", server.show_metrics),
        ],
        middleware=[Middleware(Guard, key=key, host=host)],
        exception_handlers={ApiError: _show_error, HTTPException: _show_http_error, Exception: _show_bug},
    )


@dataclass
class _Record:
    """What is known about a request, for the log and the metrics."""

    path: str
    model: str = ""
    num_prompt: int = 0
    answers: list[Generated] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)


class _Server:
    """Answers the requests of all paths."""

    def __init__(self, models: ServedModels, metrics: Metrics, log: Log) -> None:
        self._models, self._metrics, self._log = models, metrics, log

    async def list_models(self, request: Request) -> Response:
        """All models."""
        return JSONResponse({"object": "list", "data": [*map(self._models.described, self._models.workers)]})

    async def show_model(self, request: Request) -> Response:
        """One model."""
        name = self._models.worker(request.path_params["name"]).name
        return JSONResponse(self._models.described(name))

    async def health(self, request: Request) -> Response:
        """Whether the server is up."""
        return JSONResponse({"status": "ok"})

    async def show_metrics(self, request: Request) -> Response:
        """The metrics."""
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    async def answer(self, is_chat: bool, request: Request) -> Any:
        """A chat completion, or completions."""
        record = _Record(request.url.path)
        try:
            job = await self._job(is_chat, request, record)
            if job.asked.is_streamed:
                return await self._stream(job, request, record)
            body, record.answers = await answer(job, request.receive)
            response = JSONResponse(body)
        except (ClientGoneError, ClientDisconnect):
            self._note(record, _CLIENT_GONE)
            return Response(status_code=_CLIENT_GONE)
        except asyncio.CancelledError:
            error = _cancelled()
            self._note(record, error.status, error)
            raise error from None
        except ApiError as error:
            self._note(record, error.status, error)
            raise
        except Exception as error:
            self._note(record, 500, error)
            raise
        self._note(record, 200)
        return response

    async def _job(self, is_chat: bool, request: Request, record: _Record) -> Job:
        body = parse_body(await _body_of(request, self._models.limits.max_body_bytes))
        if is_chat:
            chat = read_chat(body)
            worker = self._models.worker(chat.asked.model)
            record.model = worker.name
            job = await chat_job(worker, chat, self._models.limits.max_new_tokens)
        else:
            completion = read_completion(body)
            worker = self._models.worker(completion.asked.model)
            record.model = worker.name
            job = await completion_job(worker, completion)
        record.num_prompt = job.num_prompt_tokens
        return job

    async def _stream(self, job: Job, request: Request, record: _Record) -> _EventStream:
        """Start a stream. What goes wrong before its first event still has a status of its own."""
        events = stream(job, request.receive, record.answers)
        first = await anext(events)
        return _EventStream(self._noted(first, events, record))

    async def _noted(self, first: str, events: AsyncIterator[str], record: _Record) -> AsyncIterator[str]:
        """The events of a stream, which is noted at its end."""
        status: int = _CLIENT_GONE
        failure: Exception | None = None
        try:
            async with aclosing(events):  # type: ignore[type-var]
                yield first
                async for each in events:
                    yield each
            status = 200
        except ClientGoneError:
            pass
        except asyncio.CancelledError:
            failure = _cancelled()
            status = failure.status
            yield event(failure.body())
        except ApiError as error:  # the client has got it as an event
            status, failure = error.status, error
        except Exception as error:
            status, failure = 500, error
            yield event(_BUG.body())
        finally:
            self._note(record, status, failure)

    def _note(self, record: _Record, status: int, error: Exception | None = None) -> None:
        seconds = time.monotonic() - record.began
        num_answer = sum(each.num_tokens for each in record.answers)
        self._metrics.count(
            record.path, record.model, status, seconds, num_prompt=record.num_prompt, num_answer=num_answer
        )
        tokens = f", {record.num_prompt:,} + {num_answer:,} tokens" if num_answer else ""
        reason = f": {_reason(error)}" if error is not None else ""
        model = f" {record.model}" if record.model else ""
        self._log(f"{record.path}{model} {status}{tokens}, {seconds:.2f} s{reason}")


class _EventStream:
    """A response of server-sent events. The generator is closed when the response ends, however it ends.

    If the server stops while a client does not read, the response just ends.
    """

    def __init__(self, events: AsyncIterator[str]) -> None:
        self._events = events

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send all events."""
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
        with contextlib.suppress(asyncio.CancelledError):
            async with aclosing(self._events) as events:  # type: ignore[type-var]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                async for each in events:
                    await send({"type": "http.response.body", "body": each.encode(), "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _body_of(request: Request, limit: int) -> bytes:
    """Read the body of a request.

    Raises:
        ApiError: If it is too large, or not declared as JSON: pages in a browser may send anything else to any address.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(
            415,
            f"Unsupported content type: {kind[:60]!a}. Send JSON, with the header `Content-Type: application/json`.",
            code="unsupported_content_type",
        )
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise too_large(limit)
    return bytes(body)


def _cancelled() -> ApiError:
    """What a client is told if its request is cancelled, which only a server that stops does."""
    task = asyncio.current_task()
    assert task is not None
    task.uncancel()
    return stopping()


def _reason(error: Exception) -> str:
    """Why a request was refused or failed, for the log. A refusal may repeat what the client sent, so only its code."""
    if error.__cause__ is not None:
        return f"{type(error.__cause__).__name__}: {reason_of(error.__cause__)}"
    if isinstance(error, ApiError):
        return error.code or error.message if error.status >= 500 else error.code or "refused"
    return f"{type(error).__name__}: {reason_of(error)}"


async def _show_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body(), error.status, error.headers)


async def _show_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    place = f"{request.method} {request.url.path}"
    if error.status_code == 405:
        found = ApiError(405, f"Not allowed: {place}; use another method.", code="method_not_supported")
    else:
        found = ApiError(error.status_code, f"Invalid URL ({place}).")
    return JSONResponse(found.body(), found.status, error.headers)


async def _show_bug(request: Request, error: Exception) -> Response:
    return JSONResponse(_BUG.body(), _BUG.status)
