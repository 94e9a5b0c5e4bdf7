"""Every rule on hand-written cases in Chinese and English; cleaning twice is cleaning once."""

from __future__ import annotations

import time
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_modules.cleaning.cleaner import Cleaner
from data_modules.cleaning.rules import RULES
from tests.data_modules.cleaning.cases import CHARACTERS, Case
from tests.data_modules.cleaning.markup_cases import CHINESE, MARKUP

CASES = {**CHARACTERS, **MARKUP}
ALL = [pytest.param(rule, case, id=f"{rule}-{i}") for rule, cases in CASES.items() for i, case in enumerate(cases)]


def clean(rule: str, text: str, options: dict[str, Any]) -> str | None:
    """The text after one rule; the rule for empty texts, which follows every list, is left out."""
    outcome = Cleaner.from_settings([{rule: options}]).clean(f"{text}")
    dropped = [change.rule for change in outcome.changes if change.is_drop]
    return "" if dropped == ["empty"] else outcome.text


@pytest.mark.parametrize(("rule", "case"), ALL)
def test_rule_on_a_case(rule: str, case: Case) -> None:
    options, before, after = case
    assert clean(rule, before, options) == after


@pytest.mark.parametrize(("rule", "case"), ALL)
def test_cleaning_twice_is_cleaning_once(rule: str, case: Case) -> None:
    options, before, _ = case
    once = clean(rule, before, options)
    assert once is None or clean(rule, once, options) == once


@pytest.mark.parametrize("case", CHINESE, ids=str)
def test_chinese_script_on_a_case(case: Case) -> None:
    pytest.importorskip("opencc", reason='needs pip install "lit_sft[chinese]"')
    options, before, after = case
    assert clean("chinese_script", before, options) == after
    assert clean("chinese_script", str(after), options) == after


def test_every_rule_has_cases_that_change_and_that_do_not_in_both_languages() -> None:
    assert {*CASES, "chinese_script"} == set(RULES)
    for rule, cases in {**CASES, "chinese_script": CHINESE}.items():
        assert len(cases) >= 6, rule
        for is_changed in (True, False):
            texts = [before for _, before, after in cases if (before != after) is is_changed]
            # OpenCC has nothing to change in English; line_ends and such are about ASCII too
            assert len(texts) >= 2, rule
            assert any("\u3400" <= character <= "\u9fff" for text in texts for character in text), rule
            assert any(character.isascii() and character.isalpha() for text in texts for character in text), rule


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_nfc_is_that_of_the_standard_library(text: str) -> None:
    assert clean("nfc", text, {}) == ("" if not text.strip() else unicodedata.normalize("NFC", text))


@given(st.text(st.sampled_from("e\u0301\u0323\u1112\u1161\u11ab\u304b\u3099 中a\uac00\u0340\u2126\u0344\u1100")))
def test_nfc_of_combining_characters_is_that_of_the_standard_library(text: str) -> None:
    assert clean("nfc", f"x{text}", {}) == unicodedata.normalize("NFC", f"x{text}")


STARTS = ("(", "( , ", "<b ", "<b a='", "<ref>x", "<!--", "-{", "\n ", "` ", "$$ ", "a@", "a=", "（", "中,", "中(")
LONG = [
    *(start * 20_000 for start in STARTS),
    "()" * 20_000 + ")" * 20_000,
    "-{" * 20_000 + "}-" * 20_000,
    " " * 100_000 + "x",
    "👨\u200d" * 20_000,
    "a" + "\u0301" * 20_000,
]


@pytest.mark.parametrize("rule", [name for name in RULES if name not in ("boilerplate_lines", "chinese_script")])
def test_time_does_not_grow_with_the_square_of_the_text(rule: str) -> None:
    cleaner = Cleaner.from_settings([rule])
    start = time.process_time()
    for text in LONG:
        cleaner.clean(text)
    # less than one second; a rule that looks at every character from every other takes minutes
    assert time.process_time() - start < 15
