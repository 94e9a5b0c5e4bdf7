"""Grounding on real articles: their own sentences as answers, sentences of others, changed numbers."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lit_sft.scripts import Language
from lit_sft.synthesis.checks.grounded import Grounded
from lit_sft.synthesis.checks.language import SameLanguage
from lit_sft.synthesis.checks.refusals import Refusals
from tests.lit_sft.synthesis.checks.scores import LANGUAGES, candidate

pytestmark = [
    pytest.mark.assets,
    pytest.mark.skipif(
        "LIT_SFT_RECORDS" not in os.environ, reason="LIT_SFT_RECORDS is not set to a folder of real records"
    ),
]

QUESTIONS: dict[Language, str] = {"en": "What is said?", "zh": "说了什么？"}
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])|(?<=[。！？])")


def articles(language: Language) -> list[str]:
    """Texts of at most 6000 characters."""
    folder = Path(os.environ["LIT_SFT_RECORDS"])
    if language == "zh":
        rows = (folder / "text_zh_45.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(row)["text"][:6000] for row in rows]
    texts = [line for line in (folder / "text_en_wiki.txt").read_text(encoding="utf-8").split("\n") if len(line) > 2000]
    return [text[start : start + 4000] for text in texts for start in range(0, min(len(text), 16_000), 4000)]


def sentences(article: str) -> list[str]:
    return [part.strip() for part in _SENTENCE.split(article) if 20 < len(part.strip()) < 250]


def other_number(sentence: str) -> str:
    """A sentence with another first number of at least two digits; empty if it has none."""
    found = re.search(r"\d{2,}", sentence)
    return f"{sentence[: found.start()]}{int(found[0]) + 7}{sentence[found.end() :]}" if found else ""


def share_refused(rule: Callable[..., str], language: Language, answers: list[list[str]]) -> float:
    """The share of answers that a rule refuses, for each article in turn."""
    texts, draw = articles(language), random.Random(0)
    found = [
        bool(rule(candidate(QUESTIONS[language], answer, language, text)))
        for text, given in zip(texts, answers, strict=True)
        for answer in draw.sample(given, min(6, len(given)))
    ]
    assert len(found) > 100
    return sum(found) / len(found)


@pytest.mark.parametrize("language", LANGUAGES)
def test_sentences_of_the_article_are_accepted(language: Language, capsys: pytest.CaptureFixture[str]) -> None:
    answers = [sentences(text) for text in articles(language)]
    for rule in (Grounded(), SameLanguage(), Refusals()):
        share = share_refused(rule, language, answers)
        with capsys.disabled():
            print(f"\n{type(rule).__name__} refuses {share:.1%} of the article's own sentences, {language}", end="")
        assert share < 0.02


@pytest.mark.parametrize("language", LANGUAGES)
def test_sentences_of_other_articles_are_refused(language: Language, capsys: pytest.CaptureFixture[str]) -> None:
    own = [sentences(text) for text in articles(language)]
    share = share_refused(Grounded(), language, [*own[7:], *own[:7]])
    with capsys.disabled():
        print(f"\nGrounded refuses {share:.1%} of other articles' sentences, {language}", end="")
    assert share > 0.95


@pytest.mark.parametrize("language", LANGUAGES)
def test_changed_numbers_are_refused(language: Language, capsys: pytest.CaptureFixture[str]) -> None:
    changed = [list(filter(None, map(other_number, sentences(text)))) for text in articles(language)]
    share = share_refused(Grounded(), language, changed)
    with capsys.disabled():
        print(f"\nGrounded refuses {share:.1%} of sentences with another number, {language}", end="")
    assert share > 0.85
