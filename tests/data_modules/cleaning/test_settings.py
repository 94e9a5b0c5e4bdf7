"""Lists of rules are read from YAML values; mistakes are named with the nearest known rule or option."""

from __future__ import annotations

import json
from typing import Any

import pytest

from data_modules.cleaning.cleaner import Cleaner
from data_modules.errors import UserError


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ("nfc", "--data.cleaning is the string 'nfc'; expected a list of rules: [nfc, white_space]."),
        (["nfcc"], "--data.cleaning[0]: unknown rule 'nfcc'; did you mean nfc?"),
        (["nfc", 3], "--data.cleaning[1] is the number 3; expected a rule's name, or its name and options: {min_length: {characters: 20}}."),
        ([{"nfc": None, "tags": None}], "--data.cleaning[0] is several rules; expected a rule's name, or its name and options: {min_length: {characters: 20}}."),
        ([{"nfc": {"form": "C"}}], "--data.cleaning nfc: unknown option 'form'; the rule has no options."),
        ([{"min_length": 20}], "--data.cleaning min_length is the number 20; expected {min_length: {characters: ...}}."),
        ([{"min_length": {"character": 20}}], "--data.cleaning min_length: unknown option 'character'; expected characters; did you mean characters?"),
        ([{"min_length": {"characters": "20"}}], "--data.cleaning min_length.characters is the string '20'; expected a whole number."),
        ([{"min_length": {"characters": 0}}], "--data.cleaning min_length.characters is 0; expected a whole number of at least 1."),
        ([{"repetition": {"lines": 2}}], "--data.cleaning repetition.lines is 2; expected a number from 0 to 1."),
        ([{"repetition": {"lines": True}}], "--data.cleaning repetition.lines is true; expected a number."),
        ([{"repetition": {"frequent": [0.1]}}], "--data.cleaning repetition.frequent has 1 value; expected a list of 3 values. Largest share of characters in the most frequent 2-, 3- and 4-gram."),
        (["boilerplate_lines"], "--data.cleaning boilerplate_lines: no 'patterns': Regular expressions; `.*` stands for any text."),
        ([{"boilerplate_lines": {"patterns": []}}], "--data.cleaning boilerplate_lines.patterns has 0 values; expected a list with at least one value. Regular expressions; `.*` stands for any text."),
        ([{"boilerplate_lines": {"patterns": ["(a"]}}], "--data.cleaning boilerplate_lines: patterns: '(a' is not a regular expression: missing ), unterminated subpattern at position 0."),
        ([{"conversion_markup": {"variant": "zh-hand"}}], "--data.cleaning conversion_markup.variant is 'zh-hand'; expected zh-hans, zh-hant, zh-cn, zh-sg, zh-my, zh-tw, zh-hk or zh-mo; did you mean zh-hant?"),
    ],
)  # fmt: skip
def test_mistake_in_the_rules_is_named(items: Any, message: str) -> None:
    with pytest.raises(UserError) as error:
        Cleaner.from_settings(items)
    assert str(error.value) == message


def test_missing_opencc_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    from data_modules.cleaning import chinese

    monkeypatch.setitem(__import__("sys").modules, "opencc", None)
    chinese._converter.cache_clear()
    with pytest.raises(
        UserError, match=r'^--data.cleaning chinese_script: needs OpenCC.*: pip install "lit_sft\[chinese\]"'
    ):
        Cleaner.from_settings(["chinese_script"])
    chinese._converter.cache_clear()


def test_identity_is_json_and_depends_on_options_and_order() -> None:
    lists: list[Any] = [
        [],
        ["nfc", "tags"],
        ["tags", "nfc"],
        ["min_length"],
        [{"min_length": {"characters": 21}}],
        [{"repetition": {"frequent": [0.3, 0.3, 0.3]}}],
    ]
    identities = [json.dumps(Cleaner.from_settings(items).identity()) for items in lists]
    assert len(set(identities)) == len(lists)
    written = [{"min_length": {"characters": 20}}]
    assert Cleaner.from_settings(written).identity() == Cleaner.from_settings(["min_length"]).identity()


def test_a_rule_may_be_listed_twice() -> None:
    cleaner = Cleaner.from_settings(["white_space", "empty_brackets", "white_space"])
    assert cleaner.labels == ("white_space", "empty_brackets", "white_space (2)", "empty")
    assert cleaner.clean("a （） b").text == "a b"
