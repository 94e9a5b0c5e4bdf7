"""docs/synthesis_checks.md shows the rules as they are in the code, and how well they work as measured here."""

from __future__ import annotations

import yaml

from lit_sft.synthesis.checks.checks import Checks, checks_table
from lit_sft.synthesis.checks.rules import ALL
from tests.documents import text_of
from tests.lit_sft.synthesis.checks.scores import measured_table

PAGE = text_of("docs/synthesis_checks.md")


def between(name: str) -> str:
    return PAGE.partition(f"<!-- {name} -->\n")[2].partition(f"\n<!-- end of {name} -->")[0]


def test_table_of_checks_is_that_of_the_code() -> None:
    assert between("checks") == checks_table(), "copy the output of `checks_table()` into docs/synthesis_checks.md"
    assert all(line.count(" | ") == 2 for line in checks_table().splitlines()[2:])


def test_figures_of_the_page_are_those_measured() -> None:
    assert between("measured") == measured_table(), (
        "copy the output of `measured_table()` into docs/synthesis_checks.md"
    )


def test_list_of_the_page_is_read() -> None:
    items = yaml.safe_load(PAGE.partition("    checks:\n")[2].partition("\n\n")[0])
    names = Checks.from_settings(items).names
    assert names == tuple(name for name in ALL if name not in ("related", "judge"))
