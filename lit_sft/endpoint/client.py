"""Queries a model behind an OpenAI-compatible endpoint: deadlines, retries, and giving up if the endpoint is dead."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from lit_sft.credentials import Address, Secrets, read_address, without_credentials
from lit_sft.endpoint.background import Background
from lit_sft.endpoint.chat import EndpointError, NotSentError, Reply, Request
from lit_sft.endpoint.openai_client import body_of, openai_module, reaching
from lit_sft.endpoint.prices import Meter
from lit_sft.endpoint.responses import beginning, error_line, read_reply, refuse_errors
from lit_sft.endpoint.structured import ReplyForm, Structured, response_format

_FEW = 5
"""Requests in a row without any answer (each retried) after which the endpoint counts as dead."""
_MANY = 20
"""Failed requests after which we stop if there has not been a single usable reply."""

_FIRST_PAUSE = 0.5
"""Seconds before the first retry; each further pause is twice as long, up to 16 times this."""

_LONGEST_REPLY = 2**22
_NEW_LIMIT = "max_completion_tokens"
"""What some servers call `max_tokens`; their error says so."""

_UNREACHABLE = "ConnectError"
"""Name of the HTTP transport's error if no connection could be made; its module changes with the client's version."""

Pause = Callable[[float], Awaitable[Any]]


def _ignore(line: str) -> None:
    """Print nothing."""


class Endpoint:
    """A model behind an OpenAI-compatible endpoint. Thread-safe.

    Args:
        address: Such as http://127.0.0.1:8080/v1; may contain a user and password, or a query.
        model: The model's name at the endpoint.
        key: API key; empty for none.
        timeout: Seconds from the start of a request to the end of its reply.
        retries: How often to retry after a transient failure.
        concurrency: Requests at once; more threads wait their turn.
        rate: Requests a minute at most; None for no limit.
        structured: How JSON is asked for in requests with a schema.
        meter: Counts costs, and refuses what a budget does not allow.
        log: Prints a line about trouble, such as the first refusal for too many requests.
        pause: Waits the given number of seconds.

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
        concurrency: int,
        rate: float | None = None,
        structured: Structured = "auto",
        meter: Meter | None = None,
        log: Callable[[str], None] = _ignore,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self.model, self.timeout, self.retries = model, timeout, retries
        self.shown = without_credentials(address)
        self.stopped = ""
        place = read_address(address, setting="endpoint")
        self.secrets = Secrets(key, *place.values)
        self._openai, self._requests = _client(key, place, self.secrets)
        weakref.finalize(self, self._requests.end)
        self.meter, self._form, self._log, self._pause = meter, ReplyForm(structured), log, pause
        self._limit = "max_tokens"
        self._slots = threading.BoundedSemaphore(concurrency)
        self._interval = 60 / rate if rate else 0.0
        self._next_turn = self._held_until = 0.0
        self._unanswered = self._failed = self._timeouts = 0
        self._has_replied, self._last_failure = False, ""
        self._said: set[str] = set()
        self._lock = threading.Lock()

    def ask(self, request: Request) -> Reply:
        """Send a request and return the model's reply.

        Raises:
            EndpointError: If the request fails.
            NotSentError: If it was not sent: the endpoint was found dead before, or the budget does not allow it.
        """
        try:
            reply = self._in_accepted_form(request)
        except NotSentError:
            raise
        except EndpointError as error:
            self._count(error)
            raise
        with self._lock:
            self._unanswered, self._failed, self._has_replied = 0, 0, True
        return reply

    def close(self) -> None:
        """Cancel all requests and close connections. No more requests can be sent."""
        self.stopped = self.stopped or "requests were stopped"
        self._requests.end()

    def _count(self, error: EndpointError) -> None:
        """Count a failed request; stop after too many in a row."""
        with self._lock:
            self._failed += 1
            self._unanswered = 0 if error.is_answer else self._unanswered + 1
            self._last_failure = f"{error}{_advice(error)}"
            if self._unanswered >= _FEW:
                self._stop(self._unanswered)
            elif self._failed >= _MANY and not self._has_replied:
                self._stop(self._failed)

    def conclude(self) -> None:
        """Take note that all requests were sent: if none got an answer, the endpoint is dead, however few they were."""
        with self._lock:
            if self._unanswered and not self._has_replied:
                self._stop(self._unanswered)

    def _stop(self, count: int) -> None:
        """Send no more requests, after so many failed ones in a row."""
        what = "the only request" if count == 1 else f"{count} requests in a row"
        last = "" if count == 1 else "the last "
        self.stopped = self.stopped or f"{what} to {self.shown} failed, {last}with {self._last_failure}"

    def _in_accepted_form(self, request: Request) -> Reply:
        """Send a request; if the server refuses the form in which it asks for JSON, in the next form."""
        form, retries = self._form.for_request(request), self.retries
        refusal = ""
        while True:
            try:
                reply = self._with_retries(request, form, retries)
            except EndpointError as error:
                lower = self._form.after(form, error)
                if lower is None:
                    raise
                form, refusal = lower, str(error)
                if error.is_transient:  # a server error: it was retried, and the server may refuse no form at all
                    retries = 0
            else:
                if request.schema is not None and self._form.accept(form):
                    self._say("form", f"JSON schemas are refused ({refusal}); using structured: {form}")
                return reply

    def _with_retries(self, request: Request, form: str, retries: int) -> Reply:
        """Send a request; retry with growing pauses."""
        for number in range(retries + 1):
            try:
                return self._with_known_limit(request, form, is_retry=number > 0)
            except EndpointError as error:
                if not error.is_transient or number == retries:
                    raise
                wait = _FIRST_PAUSE * 2 ** min(number, 4) if error.pause is None else error.pause
                self._say(str(error).partition(":")[0] + str(error.status), f"{error}; trying again after {wait:g} s")
            self._requests.run(self._waited(wait))
        raise AssertionError("unreachable")

    async def _waited(self, seconds: float) -> None:
        await self._pause(seconds)

    def _say(self, kind: str, line: str) -> None:
        """Print a line about each kind of trouble once."""
        with self._lock:
            is_new = kind not in self._said
            self._said.add(kind)
        if is_new:
            self._log(f"{self.shown}: {line}")

    def _with_known_limit(self, request: Request, form: str, *, is_retry: bool) -> Reply:
        """Send a request once; again if the server wants another name for the limit of tokens."""
        limit = self._limit
        try:
            return self._metered(request, form, is_retry=is_retry)
        except EndpointError as error:
            if limit == _NEW_LIMIT or error.status != 400 or _NEW_LIMIT not in str(error):
                raise
            self._limit = _NEW_LIMIT
        return self._metered(request, form, is_retry=is_retry)

    def _metered(self, request: Request, form: str, *, is_retry: bool) -> Reply:
        """Send a request once, and count what it costs."""
        with self._slots:  # before the budget: a request that only waits must not hold money back from others
            if self.stopped:
                raise NotSentError(f"not sent: {self.stopped}")
            return self._counted(request, form, is_retry=is_retry)

    def _counted(self, request: Request, form: str, *, is_retry: bool) -> Reply:
        if self.meter is None:
            return self._requests.run(self._once(request, form, is_retry=is_retry))
        amount, reply, may_be_billed = self.meter.begin(request), None, False
        try:
            reply = self._requests.run(self._once(request, form, is_retry=is_retry))
        except EndpointError as error:
            may_be_billed = error.may_be_billed
            raise
        finally:
            self.meter.end(request, amount, reply, may_be_billed=may_be_billed)
        return reply

    async def _once(self, request: Request, form: str, *, is_retry: bool) -> Reply:
        """Send one request. The deadline is for the whole reply, so a server that trickles bytes cannot prolong it."""
        await self._turn(is_retry=is_retry)
        try:
            async with asyncio.timeout(self.timeout):
                body = await self._body(request, form)
        except TimeoutError:
            raise self._too_late() from None
        except self._openai.OpenAIError as error:
            raise self._failure(error) from None
        except (ValueError, OSError) as error:  # a key that is not valid in a header
            raise EndpointError(error_line(error, self.secrets), is_answer=False) from None
        except EndpointError as error:
            self._hold(error)
            raise
        return read_reply(body, self.secrets)

    async def _turn(self, *, is_retry: bool) -> None:
        """Wait as `rate` asks, and while the server asks us to wait; a retry has waited already."""
        now = asyncio.get_running_loop().time()
        turn = max(now, self._next_turn, 0.0 if is_retry else self._held_until)
        self._next_turn = turn + self._interval if self._interval else 0.0
        if turn > now:
            await self._pause(turn - now)

    def _hold(self, error: EndpointError) -> None:
        """Hold back new requests while the server asks us to wait."""
        if error.status == 429 and error.pause is not None:
            self._held_until = max(self._held_until, asyncio.get_running_loop().time() + error.pause)

    def _too_late(self) -> EndpointError:
        """A timeout. If the first few attempts time out, waiting longer for others does not help."""
        self._timeouts += 1
        return EndpointError(
            f"Timeout: no complete reply in {self.timeout:g} s",
            is_answer=False,
            is_transient=self._has_replied or self._timeouts < _FEW,
            may_be_billed=True,
        )

    def _failure(self, error: Exception) -> EndpointError:
        """The reason why the client failed, masked."""
        if isinstance(error.__cause__, EndpointError):  # some client versions wrap errors raised in hooks
            self._hold(error.__cause__)
            return error.__cause__
        is_reached = type(error.__cause__).__name__ != _UNREACHABLE
        return EndpointError(
            f"{error_line(error, self.secrets).rstrip('.')}{_system_reason(error)}",
            is_answer=False,
            is_transient=is_reached or self._has_replied,  # where nothing listens, waiting does not help
            may_be_billed=is_reached,
        )

    async def _body(self, request: Request, form: str) -> bytes:
        body_sent = body_of(request, self._limit)
        if asked := response_format(form, request):
            body_sent["response_format"] = asked
        # the client copies what it knows field by field, which costs more than sending it; `extra_body` goes as it is
        sent = self._requests.client.chat.completions.with_streaming_response.create(
            model=self.model, messages=[], extra_body=body_sent
        )
        async with sent as response:
            try:
                body = await beginning(response.iter_bytes(), _LONGEST_REPLY + 1)
            except Exception as error:  # types of the HTTP transport, which change with the client's version
                line = error_line(error, self.secrets)
                raise EndpointError(line, is_answer=False, is_transient=True, may_be_billed=True) from None
        if len(body) > _LONGEST_REPLY:
            raise EndpointError(
                f"the reply is longer than {_LONGEST_REPLY >> 20} MB", is_answer=True, may_be_billed=True
            )
        return body


def _system_reason(error: BaseException) -> str:
    """Why a connection failed, such as ` (Connection refused)`, which the client does not say itself."""
    causes, found = set[int](), ""
    cause: BaseException | None = error
    while cause is not None and id(cause) not in causes:
        causes.add(id(cause))
        if isinstance(cause, OSError) and cause.errno is not None:
            found = os.strerror(cause.errno) if cause.errno > 0 else str(cause.strerror)
        cause = cause.__cause__ or cause.__context__
    return f" ({found})" if found else ""


def _advice(error: EndpointError) -> str:
    """What to do about an endpoint that counts as dead."""
    if error.status in (401, 402, 403, 407):
        return "; check the key"
    if error.status == 404:
        return "; check the model's name and the address, which usually ends in /v1"
    if error.status == 429:
        return "; lower `concurrency`, or set `rate`"
    if error.is_answer or error.status is not None:
        return ""
    return "; check the address and that the server runs" + (", or raise `timeout`" if error.may_be_billed else "")


def _client(key: str, place: Address, secrets: Secrets) -> tuple[Any, Background]:
    """The API client's module, and a thread that runs a client.

    Raises:
        UserError: If the client is not installed.
    """
    openai = openai_module()
    client = openai.AsyncOpenAI(
        **reaching(place, key),
        timeout=None,  # httpx's is per read, so a slow server could prolong a request without end
        # the hook must not refer to the endpoint, which would then never be finalized
        http_client=openai.DefaultAsyncHttpxClient(
            timeout=None, event_hooks={"response": [partial(refuse_errors, secrets)]}
        ),
    )
    return openai, Background(client)
