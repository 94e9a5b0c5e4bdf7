"""Precision and recall of every check on cases written by hand, in English and Chinese, printed and bounded from below.

The cases beside each rule were written with it. Those of `held_out_cases` were written afterwards, so they say more.
"""

from __future__ import annotations

import pytest

from data_modules.cleaning.minhash import shingles_of
from lit_sft.scripts import Language
from lit_sft.synthesis.checks.duplicates import Duplicates
from lit_sft.synthesis.checks.rules import ALL
from tests.lit_sft.synthesis.checks.scores import (
    CASES,
    LANGUAGES,
    Score,
    candidate,
    cases_of,
    held_out_score_of,
    score_of,
)

LEAST = {
    "lengths": (1.0, 1.0),
    "language": (0.9, 0.95),
    "refusals": (0.95, 0.9),
    "references": (0.95, 0.95),
    "self_answered": (0.95, 0.95),
    "related": (0.95, 0.9),
    "grounded": (0.9, 0.95),
    "evaluation_items": (0.95, 0.85),
    "judge": (0.95, 0.95),
    "duplicates": (0.95, 0.65),
}
"""Least precision and recall of every rule on its own cases, in each language."""

LEAST_HELD_OUT = {
    "judge": (0.9, 0.95),
    "language": (0.75, 0.85),
    "refusals": (0.95, 0.8),
    "references": (0.85, 0.7),
    "self_answered": (0.95, 0.95),
    "grounded": (0.8, 0.9),
    "duplicates": (0.95, 0.6),
}
"""The same on cases written after the rule."""


def check(name: str, score: Score, least: tuple[float, float], report: pytest.CaptureFixture[str]) -> None:
    """Print a score, and assert that it is high enough."""
    with report.disabled():
        print(f"\n{name}: precision {score.precision:.2f}, recall {score.recall:.2f} on {score.num} cases", end="")
    assert score.precision >= least[0]
    assert score.recall >= least[1]


def test_every_rule_has_forty_cases_in_two_languages() -> None:
    assert CASES.keys() == ALL.keys() == LEAST.keys()
    for rule in CASES:
        assert sum(len(cases_of(rule, language)) for language in LANGUAGES) >= 40
        assert min(len(cases_of(rule, language)) for language in LANGUAGES) >= 20


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("rule", LEAST)
def test_rule_tells_its_cases_apart(rule: str, language: Language, capsys: pytest.CaptureFixture[str]) -> None:
    check(f"{rule}, {language}", score_of(rule, language), LEAST[rule], capsys)


@pytest.mark.parametrize("rule", LEAST_HELD_OUT)
def test_rule_tells_cases_apart_that_it_was_not_made_for(rule: str, capsys: pytest.CaptureFixture[str]) -> None:
    check(f"{rule}, held out", held_out_score_of(rule), LEAST_HELD_OUT[rule], capsys)


def test_numbers_of_questions_decide_whatever_the_threshold() -> None:
    finder = Duplicates(threshold=0.5).finder()
    finder.add(candidate("Who won the World Cup in 1998?", "France.", "en"))
    assert not finder.find(candidate("Who won the World Cup in 2002?", "Brazil.", "en"))
    assert finder.find(candidate("Who was it that won the World Cup in 1998?", "France.", "en"))


def test_single_characters_find_repeated_questions_that_runs_of_five_do_not() -> None:
    repeated = [row for row in cases_of("duplicates", "zh") if row[-1]]
    sets = [tuple(set(shingles_of(question).tolist()) for question in row[:2]) for row in repeated]
    assert sum(len(one & other) >= 0.8 * len(one | other) for one, other in sets) == 0
    found = score_of("duplicates", "zh")
    assert (round(found.recall * len(repeated)), len(repeated), found.precision) == (22, 23, 1.0)
