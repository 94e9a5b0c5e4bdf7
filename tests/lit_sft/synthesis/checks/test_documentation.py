"""docs/synthesis_checks.md shows the rules as they are in the code, and how well they work as measured here."""

from __future__ import annotations

import pytest
import yaml

from lit_sft.synthesis.candidate import Article, Candidate
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


@pytest.mark.parametrize(
    ("question", "answer", "is_missed"),
    [
        ("谁一起研究放射性？", "玻尔与丈夫皮埃尔一起研究放射性。", True),
        ("大桥建在哪里？", "大桥建在长江上。", True),
        ("谁出资修建大桥？", "省政府出资修建。", True),
        ("谁一起研究放射性？", "王建国与丈夫皮埃尔一起研究放射性。", False),
        ("大桥建在哪里？", "大桥建在红枫镇。", False),
    ],
)
def test_invented_chinese_names_are_missed_as_the_page_says(question: str, answer: str, is_missed: bool) -> None:
    text = (
        "居里夫人于1903年获得诺贝尔物理学奖。她与丈夫皮埃尔一起研究放射性。青石镇的大桥建于1893年，由市政府出资修建。"
    )
    refusal = Checks.from_settings(["grounded"]).refusal(Candidate(((question, answer),), Article("a", text, "zh")))
    assert (refusal is None) == is_missed, "if `grounded` has become better, correct docs/synthesis_checks.md"
    assert is_missed or (refusal and refusal.reason.startswith("the article does not contain '"))


def test_list_of_the_page_is_read() -> None:
    items = yaml.safe_load(PAGE.partition("    checks:\n")[2].partition("\n\n")[0])
    names = Checks.from_settings(items).names
    assert names == tuple(name for name in ALL if name not in ("related", "judge"))
