"""Precision and recall of every check on cases written by hand, in English and Chinese, printed and bounded from below.

The cases beside each rule were written with it. Those of `held_out_cases` were written afterwards, so they say more.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from lit_sft.scripts import Language
from lit_sft.synthesis.candidate import Article, Candidate
from lit_sft.synthesis.checks.duplicates import Duplicates
from lit_sft.synthesis.checks.evaluation_items import EvaluationItems
from lit_sft.synthesis.checks.judge import Judge
from lit_sft.synthesis.checks.lengths import Lengths
from lit_sft.synthesis.checks.rules import RULES
from tests.lit_sft.synthesis.checks import evaluation_cases
from tests.lit_sft.synthesis.checks.held_out_cases import DUPLICATES, HELD_OUT

LANGUAGES: tuple[Language, ...] = ("en", "zh")


@dataclass(frozen=True)
class Score:
    """How well a rule told cases apart."""

    precision: float
    recall: float
    num: int

    @classmethod
    def of(cls, results: Iterable[tuple[bool, bool]]) -> Score:
        """The score of pairs of what was refused and what was to be refused."""
        found = list(results)
        hits = sum(refused and wanted for refused, wanted in found)
        refused, wanted = (sum(each[place] for each in found) for place in (0, 1))
        return cls(hits / max(1, refused), hits / wanted, len(found))


def cases_of(name: str, language: Language) -> list[tuple[str, str, str, bool]]:
    """Article, question, answer, and whether to refuse; the article is empty where cases have none."""
    module = importlib.import_module(f"tests.lit_sft.synthesis.checks.{name}_cases")
    rows = module.ENGLISH if language == "en" else module.CHINESE
    return [row if len(row) == 4 else ("", *row) for row in rows]


def candidate(question: str, answer: str, language: Language, article: str = "", name: str = "a") -> Candidate:
    return Candidate(((question, answer),), Article(name, article, language))


def is_repeated(first: str, second: str, language: Language) -> bool:
    finder = Duplicates().finder()
    finder.add(candidate(first, "yes", language))
    return bool(finder.find(candidate(second, "yes", language, name="b")))


def check(name: str, score: Score, least: tuple[float, float], report: pytest.CaptureFixture[str]) -> None:
    """Print a score, and assert that it is high enough."""
    with report.disabled():
        print(f"\n{name}: precision {score.precision:.2f}, recall {score.recall:.2f} on {score.num} cases", end="")
    assert score.precision >= least[0]
    assert score.recall >= least[1]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("rule", "cases", "least"),
    [
        ("grounded", "grounded", (0.9, 0.95)),
        ("references", "reference", (0.95, 0.95)),
        ("refusals", "refusal", (0.95, 0.9)),
        ("self_answered", "self_answered", (0.95, 0.95)),
        ("language", "language", (0.9, 0.95)),
    ],
)
def test_rule_tells_cases_apart(
    rule: str, cases: str, least: tuple[float, float], language: Language, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = RULES[rule]()
    rows = cases_of(cases, language)
    results = [(bool(judge(candidate(q, a, language, article))), wanted) for article, q, a, wanted in rows]
    assert sum(len(cases_of(cases, each)) for each in LANGUAGES) >= 40
    check(f"{rule}, {language}", Score.of(results), least, capsys)


@pytest.mark.parametrize("language", LANGUAGES)
def test_lengths_tell_cases_apart(language: Language, capsys: pytest.CaptureFixture[str]) -> None:
    rule = Lengths((3, 8), (1, 6), (4, 12), (1, 10))
    results = [(bool(rule(candidate(q, a, language))), wanted) for _, q, a, wanted in cases_of("length", language)]
    check(f"lengths, {language}", Score.of(results), (1.0, 1.0), capsys)


@pytest.mark.parametrize(("language", "least"), [("en", (0.95, 0.6)), ("zh", (0.95, 0.9))])
def test_duplicates_tell_cases_apart(
    language: Language, least: tuple[float, float], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [(first, second, wanted) for _, first, second, wanted in cases_of("duplicate", language)]
    results = [(is_repeated(first, second, language), bool(wanted)) for first, second, wanted in rows]
    check(f"duplicates, {language}", Score.of(results), least, capsys)


def test_numbers_of_questions_decide_whatever_the_threshold() -> None:
    finder = Duplicates(threshold=0.5).finder()
    finder.add(candidate("Who won the World Cup in 1998?", "France.", "en"))
    assert not finder.find(candidate("Who won the World Cup in 2002?", "Brazil.", "en"))
    assert finder.find(candidate("Who was it that won the World Cup in 1998?", "France.", "en"))


@pytest.fixture
def items(tmp_path: Path) -> EvaluationItems:
    """The rule with files of conversations and of multiple choice."""
    files = {"items.jsonl": evaluation_cases.ITEMS, "choices.jsonl": evaluation_cases.CHOICES}
    for name, rows in files.items():
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return EvaluationItems(tuple(str(tmp_path / name) for name in files))


@pytest.mark.parametrize("language", LANGUAGES)
def test_evaluation_items_tell_cases_apart(
    items: EvaluationItems, language: Language, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = cases_of("evaluation", language)
    results = [(bool(items(candidate(q, a, language))), wanted) for _, q, a, wanted in rows]
    check(f"evaluation_items, {language}", Score.of(results), (0.95, 0.85), capsys)


def replying(reply: str) -> Callable[[object], str]:
    """A model that always says the same."""
    return lambda _: reply


@pytest.mark.parametrize("language", LANGUAGES)
def test_judge_tells_cases_apart(language: Language, capsys: pytest.CaptureFixture[str]) -> None:
    rows = cases_of("judge", language)
    results = [(bool(Judge()(candidate(q, a, language), replying(reply))), wanted) for q, a, reply, wanted in rows]
    check(f"judge, {language}", Score.of(results), (0.95, 0.95), capsys)


@pytest.mark.parametrize(
    ("rule", "least"),
    [
        ("grounded", (0.65, 0.9)),
        ("references", (0.85, 0.7)),
        ("refusals", (0.95, 0.8)),
        ("self_answered", (0.95, 0.95)),
        ("language", (0.75, 0.85)),
    ],
)
def test_rule_tells_cases_apart_that_it_was_not_made_for(
    rule: str, least: tuple[float, float], capsys: pytest.CaptureFixture[str]
) -> None:
    judge = RULES[rule]()
    results = []
    for language, article, question, answer, wanted in HELD_OUT[rule]:
        assert language in LANGUAGES
        results.append((bool(judge(candidate(question, answer, language, article))), wanted))
    check(f"{rule}, held out", Score.of(results), least, capsys)


def test_duplicates_tell_cases_apart_that_they_were_not_made_for(capsys: pytest.CaptureFixture[str]) -> None:
    results = [(is_repeated(one, other, "en"), wanted) for one, other, wanted in DUPLICATES]
    check("duplicates, held out", Score.of(results), (0.95, 0.6), capsys)
