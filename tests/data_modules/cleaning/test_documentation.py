"""docs/cleaning.md shows the rules as they are in the code."""

from __future__ import annotations

import yaml

from data_modules.cleaning.cleaner import Cleaner
from data_modules.cleaning.rules import RULES, SET_RULES, rules_table
from tests.documents import text_of

PAGE = text_of("docs/cleaning.md")


def test_table_of_rules_is_that_of_the_code() -> None:
    table = PAGE.partition("<!-- rules -->\n")[2].partition("\n<!-- end of rules -->")[0]
    assert table == rules_table(), "copy the output of `rules_table()` into docs/cleaning.md"


def test_cells_of_the_table_have_no_bars() -> None:
    assert all(line.count(" | ") == 2 for line in rules_table().splitlines()[2:])


def test_rules_of_the_example_are_read_and_in_the_best_order() -> None:
    example = PAGE.partition("    data:\n")[2].partition("\n\n")[0]
    items = yaml.safe_load(example)["cleaning"]
    Cleaner.from_settings(items)
    names = [next(iter(item)) if isinstance(item, dict) else item for item in items]
    assert names == [name for name in (*RULES, *SET_RULES) if name in names]
