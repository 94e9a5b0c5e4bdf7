"""What is asked of a chat model, what it replies, and why a request failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Request:
    """A request to a chat model.

    Attributes:
        messages: Roles (system, user or assistant) and contents, in order.
        max_tokens: Longest reply, in tokens.
        temperature: 0 takes the likeliest token.
        top_p: Samples from the likeliest tokens that together have this probability.
        seed: For servers that sample reproducibly; None sends none.
        schema: JSON schema that the reply should fit. Servers may ignore it: check the reply.
    """

    messages: tuple[tuple[str, str], ...]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    schema: Mapping[str, Any] | None = None

    def identity(self) -> list[Any]:
        """Everything that the reply depends on, as JSON."""
        schema = None if self.schema is None else dict(self.schema)
        return [list(map(list, self.messages)), self.max_tokens, self.temperature, self.top_p, self.seed, schema]


@dataclass(frozen=True, slots=True)
class Reply:
    """A model's reply.

    Attributes:
        text: Without lone surrogates. From `Endpoint`, it may repeat a credential: mask it before you show or write
            it. From `PaidModel`, it is masked.
        tokens_read: Tokens of the prompt; 0 if the endpoint does not report them.
        tokens_written: Tokens of the reply; 0 if the endpoint does not report them.
        finish_reason: Such as `stop`, or `length` if it was cut at `max_tokens`; empty if the endpoint gives none.
        is_masked: Whether the text repeated a credential and now has `***` in its place.
    """

    text: str
    tokens_read: int = 0
    tokens_written: int = 0
    finish_reason: str = ""
    is_masked: bool = False

    @property
    def is_metered(self) -> bool:
        """Whether the endpoint reported the tokens."""
        return self.tokens_read > 0 and (self.tokens_written > 0 or not self.text)


class ChatModel(Protocol):
    """Anything that replies to requests."""

    def ask(self, request: Request) -> Reply:
        """Reply to a request.

        Raises:
            EndpointError: If there is no reply.
        """


class EndpointError(Exception):
    """A request that failed after all its retries. The message contains no credentials.

    Args:
        message: Why it failed.
        is_answer: Whether the endpoint answered at all.
        is_transient: Whether a retry may help.
        pause: Seconds that the endpoint asks us to wait.
        status: Status code of the response.
        may_be_billed: Whether the model may have replied, so that the request may cost something.
    """

    def __init__(
        self,
        message: str,
        *,
        is_answer: bool,
        is_transient: bool = False,
        pause: float | None = None,
        status: int | None = None,
        may_be_billed: bool = False,
    ) -> None:
        super().__init__(message)
        self.is_answer, self.is_transient, self.pause = is_answer, is_transient, pause
        self.status, self.may_be_billed = status, may_be_billed


class NotSentError(EndpointError):
    """A request that was not sent, or was cancelled: requests have stopped, or the budget does not allow it.

    Args:
        message: Why.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, is_answer=False)


def count_of(value: Any) -> int:
    """A number of tokens; 0 if the value is not a plausible one."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else 0


def without_surrogates(text: str) -> str:
    """Replace lone surrogates, which cannot be encoded as UTF-8."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
