"""Rules treat traditional Chinese as they treat simplified."""

from __future__ import annotations

from typing import Any

import opencc
import pytest

from lit_sft.synthesis.candidate import Article, Candidate
from lit_sft.synthesis.checks.checks import Checks
from lit_sft.synthesis.checks.chinese import simplified
from lit_sft.synthesis.checks.duplicates import Duplicates
from tests.lit_sft.synthesis.checks.scores import cases_of

RULES = ("refusals", "references", "self_answered", "related", "grounded")
TO_TRADITIONAL, TO_SIMPLIFIED = opencc.OpenCC("s2t"), opencc.OpenCC("t2s")


def candidate(rule: str, parts: tuple[str, ...]) -> Candidate:
    """The conversation of a case."""
    if rule == "related":
        asked, answer, question = parts
        return Candidate(((question, answer),), Article("a", "", "zh"), asked)
    article, question, answer = ("", *parts) if len(parts) == 2 else parts
    return Candidate(((question, answer),), Article("a", article, "zh"))


def is_refused(rule: str, parts: tuple[Any, ...]) -> bool:
    """Whether a rule refuses a case."""
    return Checks.from_settings([rule]).refusal(candidate(rule, parts)) is not None


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_decides_alike_in_both_scripts(rule: str) -> None:
    cases = [case[:-1] for case in cases_of(rule, "zh")]
    others = [tuple(TO_TRADITIONAL.convert(part) for part in case) for case in cases]
    assert sum(case != other for case, other in zip(cases, others, strict=True)) > 0.9 * len(cases)
    assert [is_refused(rule, case) for case in others] == [is_refused(rule, case) for case in cases]


def test_questions_in_both_scripts_are_the_same_to_duplicates() -> None:
    checks = Checks([("duplicates", Duplicates())])
    question = "長江大橋是什麼時候建成的？"
    found = [
        checks.refusal(candidate("", (each, "1957"))) for each in (question, "長江大橋何時建成？", "長江大橋由誰建成？")
    ]
    assert [each is not None for each in found] == [False, True, False]


@pytest.mark.parametrize("pattern", ["說明書", "(?i)说明"])
def test_patterns_may_be_in_either_script(pattern: str) -> None:
    checks = Checks.from_settings([{"refusals": {"patterns": [pattern]}}])
    assert checks.refusal(candidate("", ("它是什麼？", "一本說明書。")))


def test_simplified_forms_are_those_of_an_independent_table() -> None:
    assert simplified("這是誰的？文章沒有說，後來、週末、兩個鐘頭裡") == "这是谁的？文章没有说，后来、周末、两个钟头里"
    for character in map(chr, range(0x4E00, 0xA000)):
        if (short := simplified(character)) != character:
            assert TO_SIMPLIFIED.convert(character) == short
