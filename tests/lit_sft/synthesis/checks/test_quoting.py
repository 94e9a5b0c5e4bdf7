"""What rules quote: whole words, Chinese clauses, never too much."""

from __future__ import annotations

import re

import pytest

from lit_sft.synthesis.candidate import Article, Candidate
from lit_sft.synthesis.checks.checks import Checks
from lit_sft.synthesis.checks.quoting import quoted


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("the text say", "What the text says about it?", "the text says"),
        ("bridge", "Two footbridges were built.", "footbridges"),
        ("say ", "They say it.", "say"),
        ("not", "It can't; not so.", "not"),
        ("对不起，文", "对不起，文章没有提到这一点。别的", "对不起，文章没有提到这一点"),
        ("根据短", "根据短文", "根据短文"),
        ("Sorry.*", "Sorry " + "word " * 30, "Sorry" + " word" * 11 + " [...]"),
    ],
)
def test_whole_words_are_quoted(pattern: str, text: str, expected: str) -> None:
    found = re.search(pattern, text)
    assert found
    assert quoted(found) == expected


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        ("What the text says about it?", "Much.", "the question refers to its article: 'the text says'"),
        ("谁建了磨坊？", "对不起，文章没有提到。", "the answer refuses: '对不起，文章没有提到'"),
        ("Who was it in Ashford?", "In the articles.", None),
        ("Who ran Ashford?", "The author claims so.", "the answer refers to its article: 'The author claims'"),
    ],
)
def test_reasons_quote_no_cut_words(question: str, answer: str, reason: str | None) -> None:
    checks = Checks.from_settings(["refusals", {"references": {"pronouns": False}}])
    refusal = checks.refusal(Candidate(((question, answer),), Article("a", "A text.", "en")))
    assert (refusal and refusal.reason) == reason
