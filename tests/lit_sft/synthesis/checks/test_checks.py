"""Lists of checks: read, applied in order, counted; what is wrong with a list is said in one line."""

from __future__ import annotations

from typing import Any

import pytest

from data_modules.errors import UserError
from lit_sft.synthesis.candidate import Article, Candidate
from lit_sft.synthesis.checks.checks import Checks, Refusal

ARTICLE = Article("a", "The mill at Ashford was built in 1802 by Joan Harker.", "en")


def candidate(question: str, answer: str, article: Article = ARTICLE) -> Candidate:
    return Candidate(((question, answer),), article)


def test_pairs_are_refused_by_the_first_rule_that_objects_and_counted() -> None:
    checks = Checks.from_settings([{"lengths": {"question": [3, 8], "answer": [1, 5]}}, "duplicates"])
    pairs = [
        ("When was the mill at Ashford built?", "In 1802."),
        ("Who?", "Joan Harker."),
        ("When was the mill of Ashford built?", "1802"),
        ("Who built the mill at Ashford?", "Joan Harker."),
    ]
    found = [checks.refusal(candidate(*pair)) for pair in pairs]
    assert [each.rule if each else "" for each in found] == ["", "lengths", "duplicates", ""]
    assert found[1] == Refusal("lengths", "question of 1 word; expected 3 to 8")
    assert checks.counts() == {
        "lengths": {"judged": 4, "refused": 1},
        "duplicates": {"judged": 3, "refused": 1},
    }


def test_only_accepted_pairs_count_as_seen() -> None:
    checks = Checks.from_settings([{"lengths": {"answer": [1, 2]}}, "duplicates"])
    long = candidate("Who built the mill at Ashford?", "It was built by Joan Harker.")
    short = candidate("Who built the mill at Ashford?", "Joan Harker.")
    refusals = [checks.refusal(each) for each in (long, short, short)]
    assert [each.rule if each else "" for each in refusals] == ["lengths", "", "duplicates"]


def test_a_list_of_checks_has_an_identity_and_describes_itself() -> None:
    checks = Checks.from_settings(["lengths", {"duplicates": {"threshold": 0.9}}])
    assert checks.names == ("lengths", "duplicates")
    assert checks.identity()[2] == ["duplicates", {"threshold": 0.9}]
    assert checks.identity() != Checks.from_settings(["lengths", "duplicates"]).identity()
    assert "threshold 0.9" in dict(checks.describe())["duplicates"]


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ("lengths", "checks is the string 'lengths'; expected a list of rules"),
        (["length"], "checks[0]: unknown rule 'length'; did you mean lengths?"),
        ([{"lengths": {"question": [9, 3]}}], "checks lengths: question [9, 3]: expected the smaller number first."),
        ([{"lengths": {"questions": [3, 9]}}], "checks lengths: unknown option 'questions'"),
        ([{"duplicates": {"threshold": 2}}], "checks duplicates.threshold is 2; expected a number from 0.5 to 1."),
        (["duplicates", "lengths"], "checks: duplicates is before lengths; "),
        (["lengths", "lengths"], "checks: lengths is listed twice; list it once."),
        ([{"lengths": {}, "duplicates": {}}], "checks[0] is several rules; expected a rule's name"),
    ],
)
def test_a_wrong_list_is_refused_in_one_line(items: Any, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        Checks.from_settings(items)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
