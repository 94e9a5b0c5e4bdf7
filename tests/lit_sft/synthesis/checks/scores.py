"""How well every check tells hand-written cases apart."""

from __future__ import annotations

import importlib
import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

CASES = {
    "lengths": "length",
    "language": "language",
    "refusals": "refusal",
    "references": "reference",
    "self_answered": "self_answered",
    "related": "related",
    "grounded": "grounded",
    "evaluation_items": "evaluation",
    "judge": "judge",
    "duplicates": "duplicate",
}
"""The file of every rule's cases."""


@dataclass(frozen=True)
class Score:
    """How well a rule told cases apart: shares of 0 to 1, and the number of cases."""

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


def score_of(rule: str, language: Language) -> Score:
    """The score of a rule on its own cases."""
    return Score.of((_refuses(rule, row, language), bool(row[-1])) for row in cases_of(rule, language))


def held_out_score_of(rule: str) -> Score:
    """The score of a rule on the cases that were written after it."""
    if rule == "duplicates":
        return Score.of((_refuses(rule, row, "en"), row[-1]) for row in DUPLICATES)
    rows = HELD_OUT[rule]
    return Score.of((_refuses(rule, row[1:], "zh" if row[0] == "zh" else "en"), row[-1]) for row in rows)


def measured_table() -> str:
    """The scores of all rules as a Markdown table, for docs/synthesis_checks.md."""
    rows = [
        "| rule | English | Chinese | written afterwards |",
        "|---|---|---|---|",
    ]
    for rule in CASES:
        own = [score_of(rule, language) for language in LANGUAGES]
        later = [held_out_score_of(rule)] if rule in {*HELD_OUT, "duplicates"} else []
        cells = [f"{score.precision:.2f} / {score.recall:.2f} of {score.num}" for score in (*own, *later)]
        rows.append(f"| `{rule}` | {' | '.join([*cells, *['none'] * (1 - len(later))])} |")
    return "\n".join(rows)


def cases_of(rule: str, language: Language) -> list[tuple[Any, ...]]:
    """The cases of a rule; whether to refuse is the last part of each."""
    module = importlib.import_module(f"tests.lit_sft.synthesis.checks.{CASES[rule]}_cases")
    rows: list[tuple[Any, ...]] = module.ENGLISH if language == "en" else module.CHINESE
    return rows


def candidate(question: str, answer: str, language: Language, article: str = "", name: str = "a") -> Candidate:
    """A conversation of one turn."""
    return Candidate(((question, answer),), Article(name, article, language))


def _refuses(rule: str, row: tuple[Any, ...], language: Language) -> bool:
    """Whether a rule refuses a case."""
    *parts, _ = row
    if rule == "duplicates":
        first, second = parts
        finder = Duplicates().finder()
        finder.add(candidate(first, "yes", language))
        return bool(finder.find(candidate(second, "yes", language, name="b")))
    if rule == "related":
        asked, answer, question = parts
        return bool(RULES[rule]()(Candidate(((question, answer),), Article("a", "", language), asked)))
    if rule == "judge":
        question, answer, reply = parts
        return bool(Judge()(candidate(question, answer, language, article="an article"), lambda _: reply))
    if rule == "evaluation_items":
        with evaluation_items() as items:
            return bool(items(candidate(*parts, language)))
    if rule == "lengths":
        return bool(Lengths((3, 8), (1, 6), (4, 12), (1, 10))(candidate(*parts, language)))
    article, question, answer = ("", *parts) if len(parts) == 2 else parts
    return bool(RULES[rule]()(candidate(question, answer, language, article)))


@contextmanager
def evaluation_items() -> Iterator[EvaluationItems]:
    """The rule with files of conversations and of multiple choice."""
    files = {"items.jsonl": evaluation_cases.ITEMS, "choices.jsonl": evaluation_cases.CHOICES}
    with tempfile.TemporaryDirectory() as folder:
        for name, rows in files.items():
            (Path(folder) / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        yield EvaluationItems(tuple(str(Path(folder) / name) for name in files))
