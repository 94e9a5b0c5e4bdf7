"""Asks a model about many subjects at once, and gives what it made of them in reading order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from data_modules.wording import shortened
from lit_sft.endpoint.chat import EndpointError, NotSentError, Reply, Request
from lit_sft.synthesis.candidate import Candidate
from lit_sft.synthesis.checks.checks import Checks, Refusal
from lit_sft.synthesis.parsing import InvalidReplyError, ReplyText, read_items
from lit_sft.synthesis.reading import Subject
from lit_sft.synthesis.recipe import Recipe
from lit_sft.synthesis.settings import ModelSettings

_WINDOW = 8
"""Subjects that are started ahead of the one whose turn it is, for each that is under way."""

_REPEATED = 4000
"""Characters of an invalid reply that are shown to the model again."""

_SHOWN = 300

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
        is_reached: Whether everything that was to be asked was asked.
    """

    subject: Subject
    made: tuple[Made, ...] = ()
    attempts: int = 0
    fault: str = ""
    reason: str = ""
    reply: str = ""
    is_reached: bool = True


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
            return Outcome(subject, fault="language", reason=subject.fault)
        language, attempt, reply = subject.article.language, 0, Reply("")
        messages = [("user", self.recipe.prompt(language, subject.given))]
        invalid = InvalidReplyError("empty_reply")
        try:
            for attempt in range(1, self.attempts + 1):
                reply = self.model.ask(self._request(messages, attempt), attempt=attempt)
                try:
                    return Outcome(subject, self._made(subject, reply), attempt)
                except InvalidReplyError as error:
                    invalid = error
                messages = [messages[0], *self._again(reply, invalid, subject)]
        except NotSentError as error:
            return Outcome(subject, attempts=attempt - 1, reason=str(error), is_reached=False)
        except EndpointError as error:
            return Outcome(subject, attempts=attempt, fault="request", reason=str(error))
        reason = f"{invalid.name}: {invalid.reason('en')}"
        return Outcome(subject, (), attempt, invalid.name, reason, shortened(" ".join(reply.text.split()), _SHOWN))

    def _request(self, messages: list[tuple[str, str]], attempt: int) -> Request:
        return Request(
            tuple(messages),
            max_tokens=self.settings.max_tokens,
            temperature=self.settings.temperature,
            top_p=self.settings.top_p,
            seed=(self.seed + attempt - 1) % 2**31,
            schema=self.schema,
        )

    def _made(self, subject: Subject, reply: Reply) -> tuple[Made, ...]:
        """The conversations in a reply, checked one by one.

        Raises:
            InvalidReplyError: If the reply does not have the recipe's form.
            EndpointError: If a check asks a model and gets no reply.
        """
        is_cut = reply.finish_reason == "length"
        text = ReplyText(reply.text, is_cut, self.settings.max_tokens, reply.is_masked)
        items = read_items(text, self.recipe.reply)
        candidates = [Candidate(self.recipe.conversation(subject.given, item), subject.article) for item in items]
        return tuple(Made(candidate, self.checks.alone(candidate)) for candidate in candidates)

    def _again(self, reply: Reply, invalid: InvalidReplyError, subject: Subject) -> list[tuple[str, str]]:
        """The invalid reply, and why it is invalid. Only the last one: the request must not grow with every attempt."""
        language = subject.article.language
        again = ("user", self.recipe.again(language, invalid.reason(language)))
        text = reply.text[:_REPEATED]
        if not text.strip():  # servers refuse empty messages
            return []
        return [("assistant", text), again]


def in_order(
    function: Callable[[_Item], _Made], items: Iterable[_Item], *, workers: int
) -> Iterator[_Made]:
    """Apply a function to items in several threads; results come in the order of the items.

    Args:
        function: From any thread.
        items: Taken a few at a time, in the calling thread.
        workers: Items at once.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="synthesis")
    waiting: deque[Future[_Made]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > workers * _WINDOW:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
