"""The page of conventions is up to date: `python -m tests.data_modules.rendering.test_convention_page` rewrites it."""

from __future__ import annotations

from pathlib import Path

from data_modules.rendering.convention_page import START, STOP, tables
from data_modules.rendering.convention_table import CONVENTIONS

PAGE = Path(__file__).parents[3] / "docs" / "who_trains_what.md"


def current() -> str:
    text = PAGE.read_text(encoding="utf-8")
    return text[: text.index(START)] + tables() + text[text.index(STOP) + len(STOP) :]


def test_the_page_is_generated_from_the_code() -> None:
    assert PAGE.read_text(encoding="utf-8") == current()


def test_every_convention_has_a_row_in_both_tables_and_a_source() -> None:
    for name in CONVENTIONS:
        assert sum(f"`{name}`" in line.split("|", 2)[1] for line in tables().splitlines() if line.startswith("|")) == 2
        assert f"- `{name}`: " in tables()


if __name__ == "__main__":
    PAGE.write_text(current(), encoding="utf-8")
