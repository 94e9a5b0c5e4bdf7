"""The rule about questions that are to ask what another question asks, as those of `paraphrase` are."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from data_modules.cleaning.units import is_cjk
from lit_sft.synthesis.candidate import Candidate
from lit_sft.synthesis.checks.grounded import missing_names
from lit_sft.synthesis.checks.numbers import numbers_in
from lit_sft.synthesis.checks.source import Source
from lit_sft.synthesis.checks.units import asks_in_a_unit
from lit_sft.synthesis.checks.words import (
    content_of,
    content_of_question,
    detailed_kind_of,
    is_function_word,
    kind_of_question,
)

_SENTENCE_START = re.compile(r"(?:^|[.!?:]\s+)\W*[A-Z]")
_ASKS = re.compile("什么|哪|何|谁|几|多少")

_KINDS = ("who", "when", "where", "why", "number")
"""Kinds of questions that are never asked as another of these. The others may be: what height, how high."""

_MEASURES = {"high": "high", "long": "long", "far": "long", "deep": "deep", "wide": "wide", "heavy": "heavy"}
"""What is measured by questions that never ask for another of these, nor for how many there are."""


@dataclass(frozen=True)
class Related:
    """Refuses questions that do not ask what the given question asks: of another kind (who, when, how many, how high),
    with names or numbers that neither the given question nor its answer has, or with no word of theirs. Without
    a given question, nothing is refused."""

    def __call__(self, candidate: Candidate) -> str:
        """Why a conversation is refused; empty if it is not."""
        question, answer = candidate.turns[0]
        if not candidate.asked or question == candidate.asked:
            return ""
        one, other = _kind_of(candidate.asked), _kind_of(question)
        if one and other and one != other:
            return f"the question asks {other!r}, the given one {one!r}"
        if new := _new_in(question, Source.of(f"{candidate.asked}\n{answer}")):
            return f"the given question and answer do not contain {new!r}"
        return "" if _has_common_words(question, candidate.asked, answer) else "it has no word of the given question"


def _kind_of(question: str) -> str:
    """What a question asks for; empty if it may be asked as one of another kind."""
    kind = kind_of_question(question)
    if kind != "number":
        return kind if kind in _KINDS else ""
    measured = detailed_kind_of(question)
    if measured == "many":
        return "" if asks_in_a_unit(question) else "how many"
    return _MEASURES.get(measured, "")


def _new_in(question: str, given: Source) -> str:
    """A name or a number of a question that is not given; empty if there is none."""
    for value, spelling in numbers_in(question).items():
        if value not in given.values:
            return spelling
    # any word has a capital at the start of a sentence
    text = _SENTENCE_START.sub(lambda match: match[0].lower(), question)
    names = (name for name in missing_names(text, given) if not _ASKS.search(name))
    return next((name for name in names if not is_function_word(re.split("['’]", name.lower())[0])), "")


def _has_common_words(question: str, asked: str, answer: str) -> bool:
    """Whether a question has a content word of another question, or two of its answer; two characters are a word."""
    words = set(_content(question))
    return _size(words & set(_content(asked))) >= 1 or _size(words & set(content_of(answer))) >= 2


def _content(question: str) -> list[str]:
    return [unit for unit in content_of_question(question) if not unit.startswith("?")]


def _size(words: Iterable[str]) -> float:
    return sum(0.5 if is_cjk(word) else 1.0 for word in words)
