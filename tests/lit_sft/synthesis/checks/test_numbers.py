"""Numbers by value: digits, English words, Chinese numerals."""

from __future__ import annotations

import pytest

from lit_sft.synthesis.checks.numbers import numbers_in, values_in, without_numbers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,200 sacks", {"1200"}),
        ("12.50 crowns and 0.5 litres", {"12.5", "0.5"}),
        ("3.5 million people", {"3500000"}),
        ("in the 1990s and the 19th century", {"1990", "19"}),
        ("twelve hundred", {"1200"}),
        ("in the nineteen twenties, in nineteen twenty-two", {"1920", "1922"}),
        ("the eighteen-nineties, or the eighties", {"1890", "80"}),
        ("two dozen, a dozen", {"24", "12"}),
        ("two hundred and five, or twenty-one", {"205", "21"}),
        ("the ninetieth of thirty thousand", {"90", "30000"}),
        ("one of the first, hundreds of them", set()),
        ("３０％的人", {"30"}),
        ("一千二百人", {"1200"}),
        ("约1.2亿人", {"120000000"}),
        ("一九九〇年五月", {"1990", "5"}),
        ("第三次，共二十一岁", {"3", "21"}),
        ("三亿五千万元", {"350000000"}),
        ("十二亿三千四百万零五十六人", {"1234000056"}),
        ("两千余名", {"2000"}),
        ("十分重要，一般来说，三角形", set()),
        ("两个人，四百多首", {"2", "400"}),
        ("no number at all 没有数字", set()),
    ],
)
def test_numbers_are_read_by_value(text: str, expected: set[str]) -> None:
    assert set(numbers_in(text)) == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [("3 June 1763", "6"), ("May 1847", "5"), ("3.5万人", "3.5"), ("3.5万人", "35000"), ("三角形", "3"), ("one", "1")],
)
def test_an_article_may_stand_for_more_values(text: str, value: str) -> None:
    assert value in values_in(text)


def test_numbers_are_removed_with_what_they_count() -> None:
    assert without_numbers("共有12孔，三十二米深，four hundred stones").split() == ["共有", ",", "深,", "stones"]


@pytest.mark.parametrize(
    "text",
    [
        "²",
        "٣",
        "⅓",
        "9" * 400,
        "1" + ",000" * 100,
        "十" * 300,
        "million " * 2000,
        "亿" * 2000,
        "〇一" * 3000,
        "1e9",
        "１，０",
    ],
)
def test_odd_numbers_are_read_without_an_error(text: str) -> None:
    assert set(numbers_in(text)) <= values_in(text)
