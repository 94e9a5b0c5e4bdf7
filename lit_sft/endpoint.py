"""Queries a model behind an OpenAI-compatible endpoint: deadlines, retries, and giving up if the endpoint is dead."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError, Future
from functools import partial
from http import HTTPStatus
from typing import Any

from data_modules.errors import UserError
from data_modules.wording import kind_of
from lit_sft.credentials import Secrets, read_address, without_credentials
from lit_sft.replies import Reply, count_of

_FEW = 5
"""Requests in a row without any answer (each retried) after which the endpoint counts as dead."""
_MANY = 20
"""Failed requests after which we stop if there has not been a single usable reply."""

_LONGEST_REPLY = 2**22
_LONGEST_ERROR = 2**12
"""Bytes of an error response that are read and masked; one line of `_LONGEST_REASON` characters is shown."""
_LONGEST_REASON = 200
_LONGEST_PAUSE = 60.0

# status codes worth retrying, and those that rule out any further request
_RETRIED = (408, 409, 429)
_REFUSED = (401, 402, 403, 404, 407, 408, 429)

Pause = Callable[[float], Awaitable[Any]]


class EndpointError(Exception):
    """A request that failed after all its retries. The message contains no credentials.

    Args:
        message: Why it failed.
        is_answer: Whether the endpoint answered at all.
        is_transient: Whether a retry may help.
        pause: Seconds that the endpoint asks us to wait.
    """

    def __init__(
        self, message: str, *, is_answer: bool, is_transient: bool = False, pause: float | None = None
    ) -> None:
        super().__init__(message)
        self.is_answer, self.is_transient, self.pause = is_answer, is_transient, pause


class _Requests:
    """Runs the requests of all threads in one background thread, where they can be cancelled at any moment.

    Args:
        client: The API client; closed at the end.
    """

    def __init__(self, client: Any) -> None:
        self.client = client
        self._loop: asyncio.AbstractEventLoop | None = None
        self._under_way: set[Future[Reply]] = set()
        self._has_ended = False
        self._lock = threading.Lock()

    def run(self, request: Coroutine[Any, Any, Reply]) -> Reply:
        """Start a request and wait for its reply.

        Raises:
            EndpointError: If it failed or was cancelled, or `end` was called before.
        """
        future = self._start(request)
        try:
            return future.result()
        except CancelledError:
            raise EndpointError("cancelled: judging was stopped", is_answer=False) from None
        finally:
            self._under_way.discard(future)

    def _start(self, request: Coroutine[Any, Any, Reply]) -> Future[Reply]:
        """Pass a request to the thread, under the lock so that `end` finds every started request."""
        with self._lock:
            if self._has_ended:
                request.close()
                raise EndpointError("not sent: judging was stopped", is_answer=False)
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._run, args=(self._loop,), name="endpoint", daemon=True).start()
            future = asyncio.run_coroutine_threadsafe(request, self._loop)
            self._under_way.add(future)
            return future

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        loop.run_forever()
        loop.close()

    def end(self) -> None:
        """Cancel all requests, refuse new ones, and let the thread end, without waiting for it."""
        with self._lock:
            loop, self._loop, self._has_ended = self._loop, None, True
        if loop is not None:
            loop.call_soon_threadsafe(lambda: asyncio.ensure_future(self._ended(loop)))

    async def _ended(self, loop: asyncio.AbstractEventLoop) -> None:
        for request in list(self._under_way):  # only the futures: their clean-up cannot be cancelled safely
            request.cancel()
        await asyncio.sleep(0)
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)
        await self.client.close()
        await loop.shutdown_asyncgens()
        loop.stop()


class Endpoint:
    """A model behind an OpenAI-compatible endpoint. Thread-safe.

    Args:
        address: Such as http://127.0.0.1:8080/v1; may contain a user and password, or a query.
        model: The model's name at the endpoint.
        key: API key.
        timeout: Seconds from the start of a request to the end of its reply.
        retries: How often to retry after a transient failure.
        max_tokens: Longest reply, in tokens.
        pause: Waits the given number of seconds between two attempts.

    Attributes:
        stopped: Why no more requests are sent; empty while the endpoint works.

    Raises:
        UserError: If the client is not installed, or the address is not an HTTP address.
    """

    def __init__(
        self,
        address: str,
        model: str,
        *,
        key: str,
        timeout: float,
        retries: int,
        max_tokens: int,
        pause: Pause = asyncio.sleep,
    ) -> None:
        try:
            import openai
        except ImportError:
            raise UserError("the openai client is not installed; `pip install 'lit_sft[judge]'`.") from None
        place = read_address(address, setting="endpoint")
        self.secrets = Secrets(key, *place.values)
        self.model, self.timeout, self.retries, self.max_tokens = model, timeout, retries, max_tokens
        self.shown = without_credentials(address)
        self.stopped = ""
        self._pause, self._openai = pause, openai
        client = openai.AsyncOpenAI(
            api_key=key,
            base_url=place.base,
            default_query=place.query,
            default_headers={"Authorization": place.authorization} if place.authorization else None,
            timeout=None,  # httpx's is per read, so a slow server could prolong a request without end
            max_retries=0,
            # the hook must not refer to this endpoint, which would then never be finalized
            http_client=openai.DefaultAsyncHttpxClient(
                timeout=None, event_hooks={"response": [partial(_refuse, self.secrets)]}
            ),
        )
        self._requests = _Requests(client)
        weakref.finalize(self, self._requests.end)
        for name in ("openai", "httpx", "httpx2", "httpcore", "httpcore2"):
            logging.getLogger(name).setLevel(logging.WARNING)  # they log addresses with their queries
        self._unanswered, self._failed, self._has_replied = 0, 0, False
        self._lock = threading.Lock()

    def ask(self, prompt: str) -> Reply:
        """Send a prompt and return the model's reply.

        Raises:
            EndpointError: If the request fails, or the endpoint was found dead before.
        """
        if self.stopped:
            raise EndpointError(f"not sent: {self.stopped}", is_answer=False)
        try:
            reply = self._requests.run(self._with_retries(prompt))
        except EndpointError as error:
            self._count(error)
            raise
        with self._lock:
            self._unanswered, self._failed, self._has_replied = 0, 0, True
        return reply

    def close(self) -> None:
        """Cancel all requests and close connections. No more requests can be sent."""
        self.stopped = self.stopped or "judging was stopped"
        self._requests.end()

    def _count(self, error: EndpointError) -> None:
        """Count a failed request; stop after too many in a row."""
        with self._lock:
            self._failed += 1
            self._unanswered = 0 if error.is_answer else self._unanswered + 1
            is_dead = self._unanswered >= _FEW or (self._failed >= _MANY and not self._has_replied)
            if is_dead and not self.stopped:
                count = self._unanswered if self._unanswered >= _FEW else self._failed
                self.stopped = f"{count} requests in a row to {self.shown} failed, the last with {error}"

    async def _with_retries(self, prompt: str) -> Reply:
        """Send a request; retry with growing pauses."""
        text = _without_surrogates(prompt)
        for number in range(self.retries + 1):
            try:
                return await self._once(text)
            except EndpointError as error:
                if not error.is_transient or number == self.retries or self.stopped:
                    raise
                wait = min(0.5 * 2**number, 8.0) if error.pause is None else error.pause
            await self._pause(wait)
        raise AssertionError("unreachable")

    async def _once(self, prompt: str) -> Reply:
        """Send one request. The deadline is for the whole reply, so a server that trickles bytes cannot prolong it."""
        try:
            async with asyncio.timeout(self.timeout):
                body = await self._body(prompt)
        except TimeoutError:
            raise EndpointError(
                f"Timeout: no complete reply in {self.timeout:g} s", is_answer=False, is_transient=True
            ) from None
        except self._openai.OpenAIError as error:
            if isinstance(error.__cause__, EndpointError):  # some client versions wrap errors raised in hooks
                raise error.__cause__ from None
            raise EndpointError(_error_line(error, self.secrets), is_answer=False, is_transient=True) from None
        except (ValueError, OSError) as error:  # a key that is not valid in a header
            raise EndpointError(_error_line(error, self.secrets), is_answer=False) from None
        try:
            return _reply_of(json.loads(body))
        except (ValueError, RecursionError) as error:
            raise EndpointError(_error_line(error, self.secrets), is_answer=True) from None

    async def _body(self, prompt: str) -> bytes:
        request = self._requests.client.chat.completions.with_streaming_response.create(
            model=self.model,
            messages=[{"role": "user", "content": prompt}],
            temperature=0.0,
            max_tokens=self.max_tokens,
        )
        async with request as response:
            try:
                body = await _beginning(response.iter_bytes(), _LONGEST_REPLY + 1)
            except Exception as error:  # types of the HTTP transport, which change with the client's version
                raise EndpointError(_error_line(error, self.secrets), is_answer=False, is_transient=True) from None
        if len(body) > _LONGEST_REPLY:
            raise EndpointError(f"the reply is longer than {_LONGEST_REPLY >> 20} MB", is_answer=True)
        return body


async def _beginning(parts: AsyncIterator[bytes], limit: int) -> bytes:
    """Read the first bytes of a body, and no more."""
    body = bytearray()
    async for part in parts:
        body += part
        if len(body) >= limit:
            break
    return bytes(body[:limit])


async def _refuse(secrets: Secrets, response: Any) -> None:
    """Turn an error response into an `EndpointError` before its body is read; the client would read any length of it.

    Raises:
        EndpointError: If the response is an error; contains the beginning of its message.
    """
    if response.is_success or (response.has_redirect_location and _is_short(response.headers.get("content-length"))):
        return
    try:
        body = await _beginning(response.aiter_bytes(), _LONGEST_ERROR)
    except Exception:  # of the HTTP transport; the status is known even if the body cannot be read
        body = b""
    status = int(response.status_code)
    reason = _line(_message_of(body), secrets)
    raise EndpointError(
        f"Error code: {status}{_phrase(status)}{f': {reason}' if reason else ''}",
        is_answer=status < 500 and status not in _REFUSED,
        is_transient=status >= 500 or status in _RETRIED,
        pause=_retry_after(response.headers.get("retry-after")),
    )


def _is_short(length: str | None) -> bool:
    """Whether a redirect declares a short body; the client reads it all."""
    return length is not None and length.isdecimal() and len(length) < 10 and int(length) <= _LONGEST_ERROR


def _phrase(status: int) -> str:
    try:
        return f" ({HTTPStatus(status).phrase})"
    except ValueError:  # a non-standard status code
        return ""


def _message_of(body: bytes) -> str:
    """The message of an error in OpenAI's format, else the whole body."""
    try:
        message = json.loads(body)["error"]["message"]
    except (ValueError, RecursionError, LookupError, TypeError):
        message = None
    return message if isinstance(message, str) else body.decode("utf-8", "replace")


def _error_line(error: BaseException, secrets: Secrets) -> str:
    """The type and message of an error, in one line."""
    return f"{type(error).__name__}: {_line(str(error), secrets)}"


def _line(text: str, secrets: Secrets) -> str:
    """The beginning of a text in one line, masked before it is cut."""
    line = " ".join(text[:_LONGEST_ERROR].split())
    return secrets.mask(without_credentials(line))[:_LONGEST_REASON]


def _retry_after(header: str | None) -> float | None:
    """Seconds to wait, if the header is a plain number."""
    if header is None or not re.fullmatch(r"\d{1,6}(\.\d*)?", header.strip()):
        return None
    return min(float(header), _LONGEST_PAUSE)


def _reply_of(value: Any) -> Reply:
    """The text and token counts of a chat completion.

    Raises:
        UserError: If it contains no text.
    """
    try:
        content = value["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        raise UserError("not a chat completion: expected `choices` with a `message`.") from None
    if content is not None and not isinstance(content, str):
        raise UserError(f"not a chat completion: `content` is {kind_of(content)}; expected a string.")
    usage = value.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    return Reply(
        _without_surrogates(content or ""),
        count_of(counts.get("prompt_tokens")),
        count_of(counts.get("completion_tokens")),
    )


def _without_surrogates(text: str) -> str:
    """Replace lone surrogates, which cannot be encoded as UTF-8."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
