"""Asks a model behind an OpenAI-compatible endpoint: a deadline, retries, giving up on a dead one, replies on disk."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError, Future
from dataclasses import asdict, dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

from data_modules.errors import UserError
from data_modules.records.record import kind_of
from lit_sft.credentials import Secrets, read_address, without_credentials
from lit_sft.files import append_line, read_rows

_FEW = 5
"""So many requests in a row without any answer (each with its retries): the endpoint is dead."""
_MANY = 20
"""So many at the beginning, none of which had a usable answer: nothing will come of the others either."""

_LONGEST_REPLY = 2**22
_LONGEST_ERROR = 2**12
"""Bytes of an error that are read and masked; of these, a line of `_LONGEST_REASON` characters is shown."""
_LONGEST_REASON = 200
_LONGEST_PAUSE = 60.0

# what may go away by itself, and what says that it is no use to ask anything else
_RETRIED = (408, 409, 429)
_REFUSED = (401, 402, 403, 404, 407, 408, 429)

Pause = Callable[[float], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model replied.

    Attributes:
        text: Without lone surrogates. It may repeat a credential: mask it before it is shown or written.
        tokens_read: Of the prompt; 0 where the endpoint does not say.
        tokens_written: Of the reply, likewise.
    """

    text: str
    tokens_read: int = 0
    tokens_written: int = 0


class EndpointError(Exception):
    """A request that failed after all its retries. The message holds no credential.

    Args:
        message: Why.
        is_answer: Whether the endpoint answered at all.
        is_transient: Whether asking again may help.
        pause: Seconds that the endpoint asks to wait.
    """

    def __init__(
        self, message: str, *, is_answer: bool, is_transient: bool = False, pause: float | None = None
    ) -> None:
        super().__init__(message)
        self.is_answer, self.is_transient, self.pause = is_answer, is_transient, pause


class _Requests:
    """Runs the requests of all threads in a thread of its own, where they can be given up at any moment.

    Args:
        client: Of the API; closed at the end.
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
            EndpointError: If it failed or was given up, or everything has ended already.
        """
        future = self._start(request)
        try:
            return future.result()
        except CancelledError:
            raise EndpointError("given up: the judging was stopped", is_answer=False) from None
        finally:
            self._under_way.discard(future)

    def _start(self, request: Coroutine[Any, Any, Reply]) -> Future[Reply]:
        """Hand a request to the thread; under the lock, so that `end` finds every request that was started."""
        with self._lock:
            if self._has_ended:
                request.close()
                raise EndpointError("not asked: the judging was stopped", is_answer=False)
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
        """Give up every request, start no other, and let the thread end; does not wait for it."""
        with self._lock:
            loop, self._loop, self._has_ended = self._loop, None, True
        if loop is not None:
            loop.call_soon_threadsafe(lambda: asyncio.ensure_future(self._ended(loop)))

    async def _ended(self, loop: asyncio.AbstractEventLoop) -> None:
        for request in list(self._under_way):  # which end what they have begun; that cannot be cancelled safely
            request.cancel()
        await asyncio.sleep(0)
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)
        await self.client.close()
        await loop.shutdown_asyncgens()
        loop.stop()


class Endpoint:
    """A model behind an OpenAI-compatible endpoint. Several threads may ask at once.

    Args:
        address: Such as http://127.0.0.1:8080/v1; may hold a user and password, or a query.
        model: Its name there.
        key: Of the API.
        timeout: Seconds from the beginning of a request to the end of its reply.
        retries: Of a request that fails for a reason that may go away.
        max_tokens: Most tokens of a reply.
        pause: Waits so many seconds between two tries.

    Attributes:
        stopped: Why nothing is asked any more; empty as long as the endpoint lives.

    Raises:
        UserError: If the client is not installed, or the address is none.
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
            timeout=None,  # of a single read: a slow server would prolong it without end
            max_retries=0,
            # the hook must not hold this endpoint, which would then never be finalized
            http_client=openai.DefaultAsyncHttpxClient(
                timeout=None, event_hooks={"response": [partial(_refuse, self.secrets)]}
            ),
        )
        self._requests = _Requests(client)
        weakref.finalize(self, self._requests.end)
        for name in ("openai", "httpx", "httpx2", "httpcore", "httpcore2"):
            logging.getLogger(name).setLevel(logging.WARNING)  # they log addresses, with their queries
        self._unanswered, self._failed, self._has_replied = 0, 0, False
        self._lock = threading.Lock()

    def ask(self, prompt: str) -> Reply:
        """What the model replies to a prompt.

        Raises:
            EndpointError: If it does not, or the endpoint was found dead before.
        """
        if self.stopped:
            raise EndpointError(f"not asked: {self.stopped}", is_answer=False)
        try:
            reply = self._requests.run(self._tried(prompt))
        except EndpointError as error:
            self._count(error)
            raise
        with self._lock:
            self._unanswered, self._failed, self._has_replied = 0, 0, True
        return reply

    def close(self) -> None:
        """Give up what is under way, and close connections. Nothing can be asked any more."""
        self.stopped = self.stopped or "the judging was stopped"
        self._requests.end()

    def _count(self, error: EndpointError) -> None:
        """Stop after a few requests in a row that came to nothing."""
        with self._lock:
            self._failed += 1
            self._unanswered = 0 if error.is_answer else self._unanswered + 1
            is_dead = self._unanswered >= _FEW or (self._failed >= _MANY and not self._has_replied)
            if is_dead and not self.stopped:
                count = self._unanswered if self._unanswered >= _FEW else self._failed
                self.stopped = f"{count} requests in a row to {self.shown} failed, the last with {error}"

    async def _tried(self, prompt: str) -> Reply:
        """The reply, after retries with growing pauses."""
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
        """One request. The deadline is for all of it: a server that sends a byte now and then does not prolong it."""
        try:
            async with asyncio.timeout(self.timeout):
                body = await self._body(prompt)
        except TimeoutError:
            raise EndpointError(
                f"Timeout: no whole reply in {self.timeout:g} s", is_answer=False, is_transient=True
            ) from None
        except self._openai.OpenAIError as error:
            if isinstance(error.__cause__, EndpointError):  # some versions of the client wrap what a hook raises
                raise error.__cause__ from None
            raise EndpointError(_said(error, self.secrets), is_answer=False, is_transient=True) from None
        except (ValueError, OSError) as error:  # a key that no header can hold
            raise EndpointError(_said(error, self.secrets), is_answer=False) from None
        try:
            return _reply_of(json.loads(body))
        except (ValueError, RecursionError) as error:
            raise EndpointError(_said(error, self.secrets), is_answer=True) from None

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
            except Exception as error:  # the transport's own kinds, which change with the client's version
                raise EndpointError(_said(error, self.secrets), is_answer=False, is_transient=True) from None
        if len(body) > _LONGEST_REPLY:
            raise EndpointError(f"the reply is longer than {_LONGEST_REPLY >> 20} MB", is_answer=True)
        return body


async def _beginning(parts: AsyncIterator[bytes], limit: int) -> bytes:
    """The first bytes of a body. What follows is not read."""
    body = bytearray()
    async for part in parts:
        body += part
        if len(body) >= limit:
            break
    return bytes(body[:limit])


async def _refuse(secrets: Secrets, response: Any) -> None:
    """Called for every reply before its body is read; the client itself would read any length of an error.

    Raises:
        EndpointError: If it is an error, with the beginning of what it says.
    """
    if response.is_success or (response.has_redirect_location and _is_short(response.headers.get("content-length"))):
        return
    try:
        body = await _beginning(response.aiter_bytes(), _LONGEST_ERROR)
    except Exception:  # the transport's own kinds; the status is known, whatever became of the body
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
    """Whether a redirection, whose body the client reads, says that it has a short one."""
    return length is not None and length.isdecimal() and len(length) < 10 and int(length) <= _LONGEST_ERROR


def _phrase(status: int) -> str:
    try:
        return f" ({HTTPStatus(status).phrase})"
    except ValueError:  # a number of the server's own
        return ""


def _message_of(body: bytes) -> str:
    """What an error says: the message of OpenAI's format, else all of it."""
    try:
        message = json.loads(body)["error"]["message"]
    except (ValueError, RecursionError, LookupError, TypeError):
        message = None
    return message if isinstance(message, str) else body.decode("utf-8", "replace")


def _said(error: BaseException, secrets: Secrets) -> str:
    """The kind of an error and what it says, in a line."""
    return f"{type(error).__name__}: {_line(str(error), secrets)}"


def _line(text: str, secrets: Secrets) -> str:
    """The beginning of a text, masked before it is cut to what is shown."""
    line = " ".join(text[:_LONGEST_ERROR].split())
    return secrets.mask(without_credentials(line))[:_LONGEST_REASON]


def _retry_after(header: str | None) -> float | None:
    """Seconds to wait, as far as a server says so in a plain number."""
    if header is None or not re.fullmatch(r"\d{1,6}(\.\d*)?", header.strip()):
        return None
    return min(float(header), _LONGEST_PAUSE)


def _reply_of(value: Any) -> Reply:
    """A chat completion's text and what it cost.

    Raises:
        UserError: If there is no text where one should be.
    """
    try:
        content = value["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        raise UserError("no chat completion: expected `choices` with a `message`.") from None
    if content is not None and not isinstance(content, str):
        raise UserError(f"no chat completion: `content` is {kind_of(content)}; expected text.")
    usage = value.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    return Reply(
        _without_surrogates(content or ""),
        _count_of(counts.get("prompt_tokens")),
        _count_of(counts.get("completion_tokens")),
    )


def _count_of(value: Any) -> int:
    """A number of tokens; 0 where there is none that can be believed."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else 0


def _without_surrogates(text: str) -> str:
    """Text that UTF-8 can hold: a lone half of a surrogate pair becomes the replacement character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class Replies:
    """Replies on disk, a JSON line each, written as they come: none is paid for twice, also after a kill.

    Args:
        path: The file. Lines that cannot be read are ignored: what they held is asked again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._known: dict[str, Reply] = {}
        for row in read_rows(path).rows if path.is_file() else []:
            if isinstance(row.get("key"), str) and isinstance(row.get("text"), str):
                counts = (_count_of(row.get(name)) for name in ("tokens_read", "tokens_written"))
                self._known[row["key"]] = Reply(row["text"], *counts)

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> Reply | None:
        """The reply kept under a key."""
        return self._known.get(key)

    def keep(self, key: str, reply: Reply) -> None:
        """Write a reply down, to the disk itself."""
        with self._lock:
            self._known[key] = reply
            self.path.parent.mkdir(parents=True, exist_ok=True)
            append_line(self.path, {"key": key, **asdict(reply)}, sync=True)
