"""Multiple choice by likelihood: which option a model finds most likely, under several scoring rules."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from data_modules.errors import UserError
from data_modules.wording import kind_of
from lit_sft.evaluation.scores import Metrics, Scored, Skipped
from lit_sft.evaluation.suite import ChoiceSet, Form
from lit_sft.files import short_reason
from lit_sft.models.loaded import LoadedModel, Nats

EMBEDDED = ("general",)
"""Suites that come with the package."""

_LETTERS = "ABCDEFGH"

_ITEMS_AT_ONCE = 64
"""Items encoded before scoring: enough to fill batches, few enough to show progress."""


@dataclass(frozen=True, slots=True)
class Item:
    """A question with its options.

    Attributes:
        id: Unique name.
        question: The question.
        options: In the order in which they are listed.
        answer: Index of the right option.
        language: `en` or `zh`; decides the words around the question.
        topic: Part of the suite.
    """

    id: str
    question: str
    options: tuple[str, ...]
    answer: int
    language: str = "en"
    topic: str = ""

    def prompt(self, form: Form) -> tuple[str, list[str]]:
        """The text before the options, and the options as continuations of it."""
        ask, reply, space = _WORDS[self.language]
        options = [f"{space}{option}" for option in self.options]
        if form == "cloze":
            return f"{ask}{self.question}\n{reply}", options
        letters = _LETTERS[: len(self.options)]
        lines = "".join(f"{letter}. {option}\n" for letter, option in zip(letters, self.options, strict=True))
        return f"{ask}{self.question}\n{lines}{reply}", [f"{space}{letter}" for letter in letters]


_WORDS = {"en": ("Question: ", "Answer:", " "), "zh": ("问题：", "答案：", "")}
"""Text before the question, text before the answer, and the separator after that."""


@dataclass(frozen=True, slots=True)
class OptionScore:
    """Likelihood and length of an option after its prompt.

    Attributes:
        nats: Negative log-likelihood of the option's tokens.
        tokens: Number of its tokens.
        characters: Length of its text, without the leading space.
        bytes: Length in UTF-8.
        all_nats: Negative log-likelihood of prompt and option together.
        all_tokens: Number of tokens of both, the first included.
    """

    nats: float
    tokens: int
    characters: int
    bytes: int
    all_nats: float
    all_tokens: int


RULES: dict[str, Callable[[OptionScore], float]] = {
    "sum": lambda option: -option.nats,
    "per_character": lambda option: -option.nats / option.characters,
    "per_byte": lambda option: -option.nats / option.bytes,
    "per_token": lambda option: -option.nats / option.tokens,
    "opencompass_ppl": lambda option: -option.all_nats / option.all_tokens,
    "opencompass_ll": lambda option: -option.nats,
}
"""Scoring rules; the highest score wins, the first if tied. `sum`, `per_character` and `per_byte` are lm-eval's `acc`,
`acc_norm` and `acc_bytes`; the last two are OpenCompass's: the mean over prompt and option together, divided by all
tokens, and the likelihood of the option, which ranks as `sum` does if the option starts with a new token."""


def read_choices(data: str) -> tuple[list[Item], list[str]]:
    """Read the items of a suite; also returns what is wrong with those that are skipped.

    Args:
        data: JSON lines, or the name of an embedded suite.

    Raises:
        UserError: If the file does not exist or has no valid item.
    """
    items: dict[str, Item] = {}
    wrong: list[str] = []
    for number, line in enumerate(text_of(data).removeprefix("\ufeff").split("\n"), start=1):
        try:
            if not line.strip():
                continue
            item = _item(json.loads(line))
            if item.id in items:
                raise UserError(f"duplicate id {item.id!r}")
            items[item.id] = item
        except (ValueError, KeyError, RecursionError) as error:
            reason = f"no field {error}" if isinstance(error, KeyError) else short_reason(error)
            wrong.append(f"{data}:{number}: not a valid item ({reason}).")
    if not items:
        more = f" | and {len(wrong) - 3:,} more" if len(wrong) > 3 else ""
        raise UserError(f"{data}: no valid item ({' | '.join(wrong[:3]) or 'the file is empty'}{more}).")
    return list(items.values()), wrong


def content_hash(items: Sequence[Item]) -> str:
    """Hash of everything that scores of these items depend on."""
    content = [[item.id, item.question, item.options, item.answer, item.language] for item in items]
    return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()[:16]


def score_choices(model: LoadedModel, settings: ChoiceSet, skipped: Skipped) -> Iterator[Scored]:
    """Score whether the right option is the most likely one, by form and rule.

    Metrics: `accuracy/cloze/sum`, ...

    Raises:
        UserError: If the items cannot be read.
    """
    items, wrong = read_choices(settings.data)
    skipped.add(*wrong)
    items = items[: settings.rows]
    for start in range(0, len(items), _ITEMS_AT_ONCE):
        asked: list[tuple[Item, list[Options]]] = []
        for item in items[start : start + _ITEMS_AT_ONCE]:
            try:
                asked.append((item, [Options.of(model, *item.prompt(form)) for form in settings.forms]))
            except UserError as error:
                skipped.add(f"{item.id}: {error}")
        nats = iter(model.nats(ids for _, forms in asked for options in forms for ids in options.sequences))
        for item, forms in asked:
            scores = {form: options.scores(nats) for form, options in zip(settings.forms, forms, strict=True)}
            if all(math.isfinite(option.all_nats) for options in scores.values() for option in options):
                yield _scored(item, scores, settings.rules)
            else:
                skipped.add(f"{item.id}: the likelihoods are not finite.")


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a question, encoded as continuations of the prompt.

    Attributes:
        begin: Number of prompt tokens.
        texts: The options' texts.
        sequences: Token ids of the prompt with each option.
    """

    begin: int
    texts: list[str]
    sequences: list[list[int]]

    @classmethod
    def of(cls, model: LoadedModel, prompt: str, options: Sequence[str]) -> Options:
        """Encode a prompt with each option.

        Raises:
            UserError: If one exceeds the context length, or is empty.
        """
        bare = prompt.rstrip()
        # as in lm-eval, trailing space of the prompt moves to the options, where it is part of a word's first token
        texts = [prompt[len(bare) :] + option for option in options]
        begin, sequences = len(_ids(model, bare)), [_ids(model, bare + text) for text in texts]
        for ids, text in zip(sequences, texts, strict=True):
            if not 0 < begin < len(ids):
                raise UserError(f"option {text!r} adds no token to its prompt.")
            if len(ids) > model.context_length:
                raise UserError(f"{len(ids)} tokens; the context length of the model is {model.context_length}.")
        return cls(begin, [text.strip() for text in texts], sequences)

    def scores(self, nats: Iterator[Nats]) -> list[OptionScore]:
        """Score each option from the nats of its tokens, (T,) for each sequence in turn."""
        return [
            OptionScore(
                nats=float(costs[self.begin :].sum()),
                tokens=len(costs) - self.begin,
                characters=len(text),
                bytes=len(text.encode()),
                all_nats=float(costs.sum()),
                all_tokens=len(costs),
            )
            for text, costs in zip(self.texts, nats, strict=False)
        ]


def _scored(item: Item, scores: dict[Form, list[OptionScore]], rules: Sequence[str]) -> Scored:
    metrics: Metrics = {}
    details: dict[str, Any] = {"question": item.question, "right": item.options[item.answer]}
    for form, options in scores.items():
        for rule in rules:
            chosen = int(np.argmax([RULES[rule](option) for option in options]))
            metrics[f"accuracy/{form}/{rule}"] = (float(chosen == item.answer), 1.0)
            details[f"{form}/{rule}"] = item.options[chosen]
    return Scored(item.id, metrics, group=item.topic, details=details)


def _ids(model: LoadedModel, text: str) -> list[int]:
    ids: list[int] = model.tokenizer(text, add_special_tokens=False).input_ids
    return ids


def text_of(data: str) -> str:
    """Content of a suite's file. Bytes that are not UTF-8 become lone surrogates, which items must not contain.

    Raises:
        UserError: If it cannot be read.
    """
    if data in EMBEDDED:
        return (files("lit_sft.evaluation") / f"{data}.jsonl").read_text(encoding="utf-8")
    try:
        if not Path(data).is_file():
            raise UserError("no such file")
        return Path(data).read_text(encoding="utf-8", errors="surrogateescape")
    except (OSError, ValueError) as error:
        known = ", ".join(EMBEDDED)
        raise UserError(f"{data}: cannot be read ({error}); give JSON lines, or one of {known}.") from None


def _item(row: Any) -> Item:
    if not isinstance(row, dict):
        raise UserError(f"found {kind_of(row)}; expected an object with named fields")
    if not isinstance(row["options"], list):
        raise UserError(f"options: found {kind_of(row['options'])}; expected a list")
    options = tuple(_text(option, "an option") for option in row["options"])
    if not 2 <= len(set(options)) == len(options) <= len(_LETTERS):
        raise UserError(f"options {list(options)}: expected 2 to {len(_LETTERS)} different ones")
    answer = _text(row["answer"], "the answer")
    if answer not in options:
        raise UserError(f"answer {answer!r}: not among the options")
    language = row.get("language", "en")
    if language not in list(_WORDS):
        raise UserError(f"language {language!r}: expected {' or '.join(_WORDS)}")
    question = _text(row["question"], "the question")
    if not question.strip() or not all(option.strip() for option in options):
        raise UserError("a question or an option is empty")
    topic = "" if row.get("subject") is None else _text(row["subject"], "the subject")
    name = _text(row["id"], "the id")
    return Item(name, question, options, options.index(answer), language, topic)


def _text(value: Any, what: str) -> str:
    """A field as text; numbers keep their spelling.

    Raises:
        UserError: If it is neither a string nor a number, or is not valid UTF-8.
    """
    if not isinstance(value, (str, int, float)):
        raise UserError(f"{what}: found {kind_of(value)}; expected a string or a number")
    text = str(value)
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UserError(f"{what}: not UTF-8")
    return text
