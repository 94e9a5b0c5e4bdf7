"""A model whose replies are kept in a journal: each is paid for once, whatever happens to the process."""

from __future__ import annotations

import math
import os
import re
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from data_modules.errors import UserError
from data_modules.wording import counted
from lit_sft.credentials import read_address
from lit_sft.endpoint.chat import ChatModel, NotSentError, Reply, Request
from lit_sft.endpoint.client import Endpoint
from lit_sft.endpoint.journal import Journal
from lit_sft.endpoint.prices import Budget, Meter, Prices, most_tokens
from lit_sft.endpoint.structured import Structured
from lit_sft.files import digest


@dataclass(frozen=True, kw_only=True)
class RequestSettings:
    """How a model is asked.

    Attributes:
        key_variable: The environment variable that holds the endpoint's key; null for a server without one.
        concurrency: Requests at once; a local model answers them in one batch.
        retries: For a failed request, with growing pauses, or as long as the server asks us to wait. Requests stop
            after five in a row without an answer, or after twenty failed ones without a single reply.
        timeout: Seconds per request, until the end of the reply.
        rate: Requests a minute at most; null for no limit.
        structured: How JSON is asked for. `auto`: by schema, unless the server refuses that.
        prices: Of tokens; null where unknown.
    """

    key_variable: str | None = "OPENAI_API_KEY"
    concurrency: int = 8
    retries: int = 5
    timeout: float = 120.0
    rate: float | None = None
    structured: Structured = "auto"
    prices: Prices = field(default_factory=Prices)

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise UserError(f"concurrency {self.concurrency}: expected at least 1.")
        if self.retries < 0:
            raise UserError(f"retries {self.retries}: expected at least 0.")
        if not 0 < self.timeout < math.inf:
            raise UserError(f"timeout {self.timeout:g}: expected more than 0 seconds.")
        if self.rate is not None and not 0 < self.rate < math.inf:
            raise UserError(f"rate {self.rate:g}: expected more than 0 requests a minute, or null for no limit.")


@dataclass(frozen=True)
class EndpointSettings(RequestSettings):
    """A model behind an OpenAI-compatible endpoint.

    Attributes:
        endpoint: Its address, such as http://127.0.0.1:8080/v1. A user, password or query in it is sent but never
            shown.
        name: The model's name at the endpoint.
    """

    endpoint: str = field(repr=False)
    name: str

    def __post_init__(self) -> None:
        super().__post_init__()
        read_address(self.endpoint, setting="endpoint")


@dataclass(frozen=True, slots=True)
class Usage:
    """What the replies that a process used cost, whenever they were paid for. Each reply counts once.

    Attributes:
        replies: Replies used.
        calls: Replies that this process asked for.
        from_journal: Replies used that were in the journal before.
        tokens_read: Tokens of the prompts.
        tokens_written: Tokens of the replies.
        cost: Money; None if a price is unknown, or the endpoint did not report the tokens of some reply.
        currency: Of the cost.
        unmetered: Replies whose tokens the endpoint did not report.
        masked: Replies that repeated a credential.
        unanswered: Requests of all processes that may have been billed although no reply came; not in the cost. A
            request under way when a process was killed is not among them.
    """

    replies: int = 0
    calls: int = 0
    from_journal: int = 0
    tokens_read: int = 0
    tokens_written: int = 0
    cost: float | None = None
    currency: str = "USD"
    unmetered: int = 0
    masked: int = 0
    unanswered: int = 0


class PaidModel:
    """A chat model, with a journal of its replies. Thread-safe.

    A reply that the journal has is taken from there, even after requests have stopped. Equal requests at the same time
    are sent once.

    Args:
        source: The model: an endpoint or anything else that replies; None answers from the journal alone.
        journal: Every reply is kept there before it is returned.
        place: Where the model is, such as the endpoint's address without credentials. Replies are kept under the
            place, the model, the request and the attempt.
        model: Name of the model.
        prices: Of its tokens.
        masked: Masks credentials in a reply's text; by default those of the endpoint.
    """

    def __init__(
        self,
        source: ChatModel | None,
        journal: Journal,
        *,
        place: str,
        model: str,
        prices: Prices | None = None,
        masked: Callable[[str], str] | None = None,
    ) -> None:
        self.source, self.journal, self.place, self.model = source, journal, place, model
        self.prices = prices or Prices()
        secrets = source.secrets.mask if isinstance(source, Endpoint) else str
        self._masked = masked or secrets
        self._usage = Usage()
        self._lock = threading.Lock()
        self._under_way: weakref.WeakValueDictionary[str, _Turn] = weakref.WeakValueDictionary()

    def ask(self, request: Request, *, attempt: int = 1, key: str | None = None) -> Reply:
        """The reply in the journal, or a new one, which is kept there first.

        Args:
            request: The request.
            attempt: Which attempt this is; each has its own reply.
            key: What the reply is kept under, if not under the place, the model, the request and the attempt.

        Raises:
            EndpointError: If there is no reply.
            NotSentError: If the reply is not in the journal and nothing may be sent.
            OSError: If the reply cannot be written.
        """
        key = key or digest([self.place, self.model, attempt, *request.identity()])
        with self._lock:
            turn = self._under_way.get(key)
            if turn is None:  # forgotten as soon as no thread waits for this key
                turn = self._under_way[key] = _Turn()
        with turn.lock:
            reply, is_new = self.journal.get(key), False
            if reply is None:
                reply, is_new = self._new_reply(key, request), True
            self._count(key, reply, is_new=is_new)
        return reply

    def usage(self) -> Usage:
        """What the replies used so far cost."""
        with self._lock:
            usage = self._usage
        cost = None if usage.unmetered else self.prices.cost(usage.tokens_read, usage.tokens_written)
        unanswered = self.journal.billed(self.model).unanswered
        return replace(usage, cost=cost, currency=self.prices.currency, unanswered=unanswered)

    @property
    def stopped(self) -> str:
        """Why requests have stopped, and what to do; empty if they have not."""
        budget = self._meter.budget.stopped if self._meter is not None else ""
        why = budget or (self.source.stopped if isinstance(self.source, Endpoint) else "")
        if not why:
            return ""
        how = "with a higher --max_cost" if budget else "again"
        return f"requests stopped: {why}. {self._kept()}; run the same command {how} to request the rest."

    def _kept(self) -> str:
        num = len(self.journal)
        if not num:
            return "No reply has come so far"
        return f"{counted(num, 'reply', 'replies')} {'is' if num == 1 else 'are'} kept in {self.journal.path}"

    def conclude(self) -> None:
        """Take note that all requests were sent; see `Endpoint.conclude`."""
        if isinstance(self.source, Endpoint):
            self.source.conclude()

    def close(self) -> None:
        """Cancel pending requests. The journal stays open: others may use it."""
        if isinstance(self.source, Endpoint):
            self.source.close()

    @property
    def _meter(self) -> Meter | None:
        return self.source.meter if isinstance(self.source, Endpoint) else None

    def _new_reply(self, key: str, request: Request) -> Reply:
        if self.source is None:
            raise NotSentError("not sent: the reply is not in the journal, and `offline` allows no requests")
        reply = self.source.ask(request)
        text = self._masked(reply.text)
        reply = replace(reply, text=text, is_masked=text != reply.text)
        self.journal.keep(key, reply, model=self.model, at_most=most_tokens(request))
        return reply

    def _count(self, key: str, reply: Reply, *, is_new: bool) -> None:
        if not self.journal.is_first_use(key):
            return
        with self._lock:
            self._usage = replace(
                self._usage,
                replies=self._usage.replies + 1,
                calls=self._usage.calls + is_new,
                from_journal=self._usage.from_journal + (not is_new),
                tokens_read=self._usage.tokens_read + reply.tokens_read,
                tokens_written=self._usage.tokens_written + reply.tokens_written,
                unmetered=self._usage.unmetered + (not reply.is_metered),
                masked=self._usage.masked + reply.is_masked,
            )


class _Turn:
    """Held by the thread that asks for a reply, so that threads with an equal request wait for it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


def open_endpoint(
    settings: EndpointSettings,
    journal: Journal,
    *,
    budget: Budget | None = None,
    offline: bool = False,
    place: str = "--model",
    log: Callable[[str], None] = print,
) -> PaidModel:
    """Open a model behind an endpoint.

    Args:
        settings: The endpoint.
        journal: Of its replies.
        budget: What requests may cost; may be shared with other models.
        offline: Whether to answer from the journal alone. Needs neither a key nor the client.
        place: The setting that holds `settings`; named in errors.
        log: Prints a line about trouble.

    Raises:
        UserError: If the client is not installed, the environment has no key, or the budget has a limit and a price
            is unknown.
    """
    address = read_address(settings.endpoint, setting=f"{place}.endpoint").base.rstrip("/")
    source = None
    if not offline:
        source = Endpoint(
            settings.endpoint,
            settings.name,
            key=read_key(settings.key_variable, place, otherwise=f", or {place}.key_variable to null if it has none"),
            timeout=settings.timeout,
            retries=settings.retries,
            concurrency=settings.concurrency,
            rate=settings.rate,
            structured=settings.structured,
            meter=Meter(settings.name, journal, settings.prices, budget or Budget(), place=place),
            log=log,
        )
    # without credentials, so that replies in the journal survive a new password or key
    return PaidModel(source, journal, place=address, model=settings.name, prices=settings.prices)


def shown_variable(variable: str | None) -> str | None:
    """The name of an environment variable, if it looks like one: it may be the key itself, given by mistake."""
    return variable if variable is None or re.fullmatch("[A-Z][A-Z0-9_]*", variable) else ""


def read_key(variable: str | None, place: str, *, otherwise: str = "") -> str:
    """Read a key from an environment variable; empty for none.

    Args:
        variable: Its name.
        place: The setting of the endpoint; named in the error.
        otherwise: What else to do if it is empty; follows the advice.

    Raises:
        UserError: If it is empty. See `shown_variable`.
    """
    if variable is None:
        return ""
    key = os.environ.get(variable, "").strip()  # if read from a file, it may end in a newline
    if not key:
        name = variable if shown_variable(variable) else "named by key_variable"
        raise UserError(f"{place}: the environment variable {name} is empty; set it to the endpoint's key{otherwise}.")
    return key
