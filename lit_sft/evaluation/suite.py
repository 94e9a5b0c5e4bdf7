"""A suite: sets of texts, conversations, questions and prompts, and how to score models on them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from data_modules.errors import UserError
from data_modules.records.columns import check_columns
from data_modules.records.formats import FormatName
from data_modules.rendering.templates import TemplateName
from lit_sft.credentials import read_address
from lit_sft.files import is_plain_name
from lit_sft.models.generation import GenerationSettings

Form = Literal["cloze", "letter"]
Rule = Literal["sum", "per_character", "per_byte", "per_token", "opencompass_ppl", "opencompass_ll"]


@dataclass(frozen=True)
class TextSet:
    """Perplexity of plain text in sliding windows.

    Attributes:
        data: Files, as `fit` reads them; plain text only.
        window: Maximum tokens of context; the same for all models, so that every model sees the same amount of context.
        stride: Tokens between the starts of two windows, less than a window; each token is scored once, with the
            context of the first window that contains it. None: half a window.
        rows: Maximum number of documents. None: all.
    """

    data: str | list[str]
    window: int = 512
    stride: int | None = None
    rows: int | None = None

    def __post_init__(self) -> None:
        _check_positive(self, "window", "stride", "rows")
        if self.window < 2:
            raise UserError(f"window {self.window}: expected at least 2.")
        if self.stride is not None and self.stride >= self.window:
            raise UserError(f"stride {self.stride}: expected less than the window, {self.window}.")


@dataclass(frozen=True)
class ConversationSet:
    """Perplexity of instructions and conversations, by segment and under every mask.

    Attributes:
        data: Files, as `fit` reads them.
        format: How records are read. None: recognised.
        max_length: Maximum tokens; longer conversations are truncated as in training. None: the context length, at
            most 1024.
        rows: Maximum number of records. None: all.
        columns: Fields of the format that have other names in the files, as in `--data.columns`.
    """

    data: str | list[str]
    format: FormatName | None = None
    max_length: int | None = None
    rows: int | None = None
    columns: dict[str, str] | None = None

    def __post_init__(self) -> None:
        _check_columns(self)
        _check_positive(self, "max_length", "rows")


@dataclass(frozen=True)
class AnswerSet:
    """Answers to the last turns of records, scored against the records' own.

    Attributes:
        data: Files, as `fit` reads them.
        format: How records are read. None: recognised.
        rows: Maximum number of records. None: all.
        max_new_tokens: Maximum tokens of an answer.
        temperature: 0 picks the most likely token.
        top_p: Sample from the most likely tokens that make up this share of the probability.
        seed: Seed for sampling. Together with the prompt it determines the answer; the batch size does not matter.
        columns: Fields of the format that have other names in the files, as in `--data.columns`.
    """

    data: str | list[str]
    format: FormatName | None = None
    rows: int | None = 100
    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    columns: dict[str, str] | None = None

    def __post_init__(self) -> None:
        _check_columns(self)
        _check_positive(self, "rows", "max_new_tokens")
        GenerationSettings(self.max_new_tokens, self.temperature, self.top_p)


@dataclass(frozen=True)
class ChoiceSet:
    """Multiple choice by the likelihood of the options.

    Attributes:
        data: JSON lines with `id`, `question`, `options`, `answer` (the right option's text), `language` and
            `subject`; `general` is the embedded suite.
        forms: `cloze` scores the option's text after the question; `letter` lists the options and scores
            their letters.
        rules: How an option's score is computed from its tokens; models are compared by the first.
        rows: Maximum number of items. None: all.
    """

    data: str = "general"
    forms: tuple[Form, ...] = ("cloze", "letter")
    rules: tuple[Rule, ...] = ("per_character", "sum", "per_byte", "per_token", "opencompass_ppl", "opencompass_ll")
    rows: int | None = None

    def __post_init__(self) -> None:
        _check_positive(self, "rows")
        for name in ("forms", "rules"):
            if not getattr(self, name):
                raise UserError(f"{name}: expected at least one.")


@dataclass(frozen=True)
class HarnessSet:
    """A task of lm-eval (`pip install 'lit_sft[eval]'`).

    Attributes:
        task: Its name.
        include: Folder of YAML tasks of your own. They run no Python functions unless allowed by
            `evaluate --allow_code FOLDER`. None: those of lm-eval, which need the hub.
        shots: Examples before each question. None: the task's own number.
        rows: Maximum number of items. None: all.
    """

    task: str
    include: str | None = None
    shots: int | None = None
    rows: int | None = None

    def __post_init__(self) -> None:
        _check_positive(self, "rows")
        if self.shots is not None and self.shots < 0:
            raise UserError(f"shots {self.shots}: expected at least 0.")


@dataclass(frozen=True)
class PromptSet:
    """Fixed prompts, with every model's answers shown side by side.

    Attributes:
        prompts: User messages.
        max_new_tokens: Maximum tokens of an answer.
        temperature: 0 picks the most likely token.
        seed: Seed for sampling.
    """

    prompts: list[str]
    max_new_tokens: int = 128
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.prompts or not all(prompt.strip() for prompt in self.prompts):
            raise UserError("prompts: expected at least one, none of them empty.")
        GenerationSettings(self.max_new_tokens, self.temperature)


@dataclass(frozen=True)
class JudgeSettings:
    """The judge that compares answers in pairs.

    Attributes:
        sets: Sets of answers or prompts; each model's answers are judged against the baseline's, in both orders.
        model: Model name at the endpoint; without an endpoint, a model folder whose likelihood decides.
        endpoint: An OpenAI-compatible address, such as http://127.0.0.1:8080/v1. A user, password or query in it
            is sent but never shown.
        key_variable: The environment variable that holds the key.
        concurrency: Requests at once.
        retries: For a failed request, with growing pauses. Requests stop after five failures in a row (401, 402, 403,
            404, 407, 408, 429 and server errors count as failures), or if none of the first twenty replies is usable.
        timeout: Seconds per request, until the end of the reply.
        max_tokens: Maximum tokens of a reply.
        price_read: Price of a million input tokens.
        price_written: Price of a million output tokens.
    """

    sets: list[str]
    model: str
    endpoint: str | None = field(default=None, repr=False)
    key_variable: str = "OPENAI_API_KEY"
    concurrency: int = 4
    retries: int = 5
    timeout: float = 60.0
    max_tokens: int = 64
    price_read: float = 0.0
    price_written: float = 0.0

    def __post_init__(self) -> None:
        _check_positive(self, "concurrency", "max_tokens")
        if not self.retries >= 0:
            raise UserError(f"retries {self.retries}: expected at least 0.")
        if not 0 < self.timeout < math.inf:
            raise UserError(f"timeout {self.timeout:g}: expected more than 0 seconds.")
        for name in ("price_read", "price_written"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{name} {getattr(self, name):g}: expected at least 0.")
        if self.endpoint is not None:
            read_address(self.endpoint, setting="endpoint")


AnySet = TextSet | ConversationSet | AnswerSet | ChoiceSet | HarnessSet | PromptSet


@dataclass(frozen=True)
class Suite:
    """What models are evaluated on.

    Attributes:
        name: Folder name; taken from the file name on the command line.
        question: In plain words; the title of the report.
        template: Chat template for all models. None: the one each model was trained with.
        text: Sets of plain text.
        conversations: Sets scored by perplexity.
        answers: Sets for which answers are generated.
        choices: Multiple choice.
        harness: Tasks of lm-eval.
        prompts: Fixed prompts.
        judge: Compares the models' answers in pairs. None: no judge.
        trained_on: Training files to search for the items. None: only those of the models' own runs.
        published: Reports whose published numbers are shown next to ours; names in REPORTS.
        overlap: Consecutive words that an item must share with a training record to count as contaminated.
    """

    name: str = "evaluation"
    question: str = "What did fine-tuning do to the model?"
    template: TemplateName | None = None
    text: dict[str, TextSet] = field(default_factory=dict)
    conversations: dict[str, ConversationSet] = field(default_factory=dict)
    answers: dict[str, AnswerSet] = field(default_factory=dict)
    choices: dict[str, ChoiceSet] = field(default_factory=dict)
    harness: dict[str, HarnessSet] = field(default_factory=dict)
    prompts: dict[str, PromptSet] = field(default_factory=dict)
    judge: JudgeSettings | None = None
    trained_on: list[str] | None = None
    published: tuple[str, ...] = ()
    overlap: int = 8

    def __post_init__(self) -> None:
        if not is_plain_name(self.name):
            raise UserError(f"name {self.name!r}: expected a plain name; it becomes a folder.")
        names = [name for _, name, _ in self.sets()]
        if not names:
            kinds = ", ".join(KINDS)
            raise UserError(f"no sets: give at least one of {kinds}, such as `choices: {{general: {{}}}}`.")
        for name in names:
            if names.count(name) > 1 or not is_plain_name(name):
                raise UserError(f"set {name!r}: expected a plain name that no other set has.")
        for name in self.judge.sets if self.judge else ():
            if name not in {**self.answers, **self.prompts}:
                raise UserError(f"judge.sets: no set of answers or prompts named {name!r}.")
        if unknown := set(self.published) - {*REPORTS, *REPORTS.values()}:
            raise UserError(f"published {', '.join(sorted(unknown))}: expected some of {', '.join(REPORTS.values())}.")
        if self.overlap < 1:
            raise UserError(f"overlap {self.overlap}: expected at least 1 word.")

    def sets(self) -> Iterator[tuple[str, str, AnySet]]:
        """All sets: kind, name and settings."""
        for kind in KINDS:
            for name, settings in getattr(self, kind).items():
                yield kind, name, settings


KINDS: dict[str, Any] = {
    "text": TextSet,
    "conversations": ConversationSet,
    "choices": ChoiceSet,
    "harness": HarnessSet,
    "answers": AnswerSet,
    "prompts": PromptSet,
}
"""Kinds of sets by their name in a suite, in scoring order."""

REPORTS = {"S1": "qwen_alpaca", "S3c": "gpt2_imdb_alpaca", "S4": "alpacafarm", "S5": "minigpt"}
"""Reports whose published numbers can be shown: the names that older suites use, and their current names."""


def _check_columns(settings: ConversationSet | AnswerSet) -> None:
    check_columns(settings.columns or {}, settings.format, option="columns")


def _check_positive(settings: object, *attributes: str) -> None:
    for attribute in attributes:
        value = getattr(settings, attribute)
        if value is not None and value < 1:
            raise UserError(f"{attribute} {value}: expected at least 1.")
