"""Asks a model about many subjects at once, and gives what it made of them in reading order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from data_modules.wording import shortened
from lit_sft.endpoint.chat import EndpointError, NotSentError, Reply, Request
from lit_sft.synthesis.candidate import Candidate
from lit_sft.synthesis.checks.checks import Checks, Refusal
from lit_sft.synthesis.parsing import InvalidReplyError, ReplyText, check_not_copied, read_items
from lit_sft.synthesis.reading import Subject
from lit_sft.synthesis.recipe import Recipe
from lit_sft.synthesis.settings import ModelSettings

_THREADS = 2
"""Threads for each request at once: while some check replies, others have their requests under way."""

_WINDOW = 8
"""Subjects that are started ahead of the one whose turn it is, for each request at once."""

_REPEATED = 4000
"""Characters of an invalid reply that are shown to the model again."""

_SHOWN = 300

NO_REPLY = "no_reply"
"""The fault of a subject about which a request got no answer at all, not even an error about the request."""

FAILED_REQUEST = "request"
"""The fault of a subject about which a request got an error instead of a reply."""

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


class Generator(Protocol):
    """A model that replies, such as `PaidModel`."""

    def ask(self, request: Request, *, attempt: int = 1) -> Reply:
        """Reply to a request, for the first time or again.

        Raises:
            EndpointError: If there is no reply.
        """


@dataclass(frozen=True, slots=True)
class Made:
    """A conversation that the model made.

    Attributes:
        candidate: The conversation.
        alone: Why the rules about single conversations refuse it; None if they do not.
    """

    candidate: Candidate
    alone: Refusal | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a subject.

    Attributes:
        subject: The subject.
        made: What the model made of it; empty if it failed.
        attempts: Replies that were asked for.
        fault: The name of what went wrong, such as `not_json`; empty if nothing did.
        reason: What went wrong, in a sentence.
        reply: The beginning of the last reply, if it was invalid.
        tokens_read: Tokens of all prompts about it.
        tokens_written: Tokens of all replies about it.
        is_reached: Whether everything that was to be asked was asked.
        invalid: The names of what was wrong with each invalid reply.
    """

    subject: Subject
    made: tuple[Made, ...] = ()
    attempts: int = 0
    fault: str = ""
    reason: str = ""
    reply: str = ""
    tokens_read: int = 0
    tokens_written: int = 0
    is_reached: bool = True
    invalid: tuple[str, ...] = ()


@dataclass(slots=True)
class _Asked:
    """What was asked about a subject so far.

    Attributes:
        subject: The subject.
        attempts: Replies so far.
        reply: The last one.
        invalid: What is wrong with it; None if nothing is.
        faults: What was wrong with each invalid reply.
        tokens: Tokens read and written.
    """

    subject: Subject
    attempts: int = 0
    reply: Reply = field(default_factory=lambda: Reply(""))
    invalid: InvalidReplyError | None = None
    faults: tuple[str, ...] = ()
    tokens: tuple[int, int] = (0, 0)

    def count(self, reply: Reply) -> None:
        """Count a reply."""
        self.attempts, self.reply = self.attempts + 1, reply
        self.tokens = self.tokens[0] + reply.tokens_read, self.tokens[1] + reply.tokens_written

    def outcome(self, **found: Any) -> Outcome:
        """What became of the subject."""
        read, written = self.tokens
        counts: dict[str, Any] = {"attempts": self.attempts, "tokens_read": read, "tokens_written": written}
        return Outcome(self.subject, invalid=self.faults, **counts, **found)


@dataclass(frozen=True)
class Synthesis:
    """How conversations are made of a subject.

    Attributes:
        recipe: What to ask.
        model: Who to ask.
        checks: What is refused.
        settings: How the model samples.
        attempts: How often a reply without the recipe's form is asked for, in all.
        seed: Of the first attempt.
    """

    recipe: Recipe
    model: Generator
    checks: Checks
    settings: ModelSettings
    attempts: int = 3
    seed: int = 0
    schema: dict[str, object] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "schema", self.recipe.reply.schema())

    def outcome(self, subject: Subject) -> Outcome:
        """Ask about a subject until the reply has the recipe's form, and check what it says. From any thread."""
        if subject.fault:
            return Outcome(subject, fault=subject.fault, reason=subject.reason)
        asked = _Asked(subject)
        try:
            made = self._ask(asked)
        except NotSentError as error:
            return asked.outcome(reason=str(error), is_reached=False)
        except EndpointError as error:
            return asked.outcome(fault=FAILED_REQUEST if error.is_answer else NO_REPLY, reason=str(error))
        if asked.invalid is None:
            return asked.outcome(made=made)
        reply = shortened(" ".join(asked.reply.text.split()), _SHOWN)
        return asked.outcome(fault=asked.invalid.fault, reason=asked.invalid.reason("en"), reply=reply)

    def _ask(self, asked: _Asked) -> tuple[Made, ...]:
        """Ask until a reply has the recipe's form, or too often; returns the conversations in it, checked one by one.

        Raises:
            EndpointError: If there is no reply.
        """
        subject = asked.subject
        first = ("user", self.recipe.prompt(subject.article.language, subject.given))
        messages = [first]
        for attempt in range(1, self.attempts + 1):
            asked.count(self.model.ask(self._request(messages, attempt), attempt=attempt))
            try:
                items = self._items(asked.reply, subject)
            except InvalidReplyError as error:
                asked.invalid, asked.faults = error, (*asked.faults, error.fault)
                messages = [first, *self._again(asked.reply, error, subject)]
                continue
            asked.invalid = None
            asked_about = subject.given.get("question", "")
            candidates = [
                Candidate(self.recipe.conversation(subject.given, item), subject.article, asked_about) for item in items
            ]
            return tuple(Made(candidate, self.checks.alone(candidate)) for candidate in candidates)
        return ()

    def _request(self, messages: list[tuple[str, str]], attempt: int) -> Request:
        return Request(
            tuple(messages),
            max_tokens=self.settings.max_tokens,
            temperature=self.settings.temperature,
            top_p=self.settings.top_p,
            seed=(self.seed + attempt - 1) % 2**31,
            schema=self.schema,
        )

    def _items(self, reply: Reply, subject: Subject) -> list[dict[str, str]]:
        text = ReplyText(reply.text, reply.finish_reason == "length", self.settings.max_tokens, reply.is_masked)
        items = read_items(text, self.recipe.reply)
        check_not_copied(items, self.recipe.wording(subject.article.language).prompt, subject.given)
        return items

    def _again(self, reply: Reply, invalid: InvalidReplyError, subject: Subject) -> list[tuple[str, str]]:
        """The invalid reply, and why it is invalid. Only the last one: the request must not grow with every attempt."""
        language = subject.article.language
        again = ("user", self.recipe.again(language, invalid.reason(language)))
        text = reply.text[:_REPEATED]
        if not text.strip():  # servers refuse empty messages
            return []
        return [("assistant", text), again]


def in_order(function: Callable[[_Item], _Made], items: Iterable[_Item], *, requests: int) -> Iterator[_Made]:
    """Apply a function to items in several threads; results come in the order of the items.

    Args:
        function: From any thread.
        items: Taken a few at a time, in the calling thread.
        requests: That the function may have under way at once; it waits where there are more.
    """
    pool = ThreadPoolExecutor(requests * _THREADS, thread_name_prefix="synthesis")
    waiting: deque[Future[_Made]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > requests * _WINDOW:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
