"""docs/cleaning.md shows the rules as they are in the code."""

from __future__ import annotations

import re
from typing import Any

import yaml

from data_modules.cleaning.cleaner import Cleaner
from data_modules.cleaning.rules import RULES, SET_RULES, rules_table
from tests.documents import text_of

PROSE = ("punctuation_width", "white_space")
PAGE = text_of("docs/cleaning.md")


def test_table_of_rules_is_that_of_the_code() -> None:
    table = PAGE.partition("<!-- rules -->\n")[2].partition("\n<!-- end of rules -->")[0]
    assert table == rules_table(), "copy the output of `rules_table()` into docs/cleaning.md"


def test_cells_of_the_table_have_no_bars() -> None:
    assert all(line.count(" | ") == 2 for line in rules_table().splitlines()[2:])


def rules_of_the_page() -> list[Any]:
    example = PAGE.partition("    data:\n")[2].partition("\n\n")[0]
    items: list[Any] = yaml.safe_load(example)["cleaning"]
    return items


def test_article_of_the_page_is_cleaned_as_shown() -> None:
    before, after = re.findall(r"```text\n(.*?)\n```", PAGE, re.DOTALL)
    outcome = Cleaner.from_settings(rules_of_the_page()).clean(f"{before}\r\n")
    assert outcome.text == after
    changed = {change.rule for change in outcome.changes}
    assert changed >= {
        "tags",
        "conversion_markup",
        "first_heading",
        "empty_brackets",
        "punctuation_width",
        "white_space",
    }


def test_rules_of_the_page_are_in_the_best_order() -> None:
    items = rules_of_the_page()
    names = [next(iter(item)) if isinstance(item, dict) else item for item in items]
    assert names == [name for name in (*RULES, *SET_RULES) if name in names]
