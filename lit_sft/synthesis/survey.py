"""What the accepted and the refused conversations of a folder look like, counted in one pass, in bounded memory."""

from __future__ import annotations

import heapq
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any

from data_modules.cleaning.units import is_cjk, units_of
from data_modules.errors import UserError
from data_modules.progress import with_progress
from data_modules.wording import listed
from lit_sft.files import short_reason
from lit_sft.synthesis.checks.chinese import simplified
from lit_sft.synthesis.checks.lengths import length_of
from lit_sft.synthesis.checks.words import content_of, is_function_word, kind_of_question

_FIELDS = {"messages", "article_id", "provenance"}

_EXAMPLES, _REFUSED = 8, 3
"""Accepted conversations kept as examples, and refused ones of each rule."""

_MOST_REASONS = 1000
"""Kinds of reasons that are counted."""

_DETAIL = re.compile(r"'.*'|\".*\"|\d[\d,.]*%?|(?<=: ).*")

_MOST_TERMS = 50_000
"""Words that are counted at a time; the rarest are forgotten when there are twice as many."""

Turns = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation that is shown.

    Attributes:
        turns: Its questions and answers.
        article: The id of its article.
        reason: Why it was refused; empty if it was not.
    """

    turns: Turns
    article: str
    reason: str = ""


class Sample:
    """A few of many conversations, drawn by a hash of what they say: the same whatever their order.

    Args:
        size: How many to keep.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: list[tuple[int, int, Example]] = []
        self._num = 0

    def add(self, example: Example) -> None:
        """Consider one."""
        self._num += 1
        text = json.dumps([example.turns, example.article])
        key = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
        heapq.heappush(self._kept, (-key, self._num, example))
        if len(self._kept) > self._size:
            heapq.heappop(self._kept)

    def examples(self) -> list[Example]:
        """Those that were kept, in reading order."""
        return [example for _, _, example in sorted(self._kept, key=lambda each: each[1])]


@dataclass
class Survey:
    """Counts over the conversations of a folder.

    Attributes:
        languages: Accepted conversations by language.
        turns: By number of turns.
        per_article: Articles by how many conversations each gave; articles without any are not in it.
        question_lengths: Questions by length, for each language: words, or characters in Chinese.
        answer_lengths: The same for answers.
        kinds: Questions by what they ask for.
        terms: Content words of questions; pairs of characters in Chinese.
        accepted: A sample of the accepted conversations.
        refused: A sample of the refused ones by rule.
        reasons: Refused conversations by rule and kind of reason.
    """

    languages: Counter[str] = field(default_factory=Counter)
    turns: Counter[int] = field(default_factory=Counter)
    per_article: Counter[int] = field(default_factory=Counter)
    question_lengths: dict[str, Counter[int]] = field(default_factory=dict)
    answer_lengths: dict[str, Counter[int]] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    terms: Counter[str] = field(default_factory=Counter)
    accepted: Sample = field(default_factory=lambda: Sample(_EXAMPLES))
    refused: dict[str, Sample] = field(default_factory=dict)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, row: dict[str, Any]) -> None:
        """Count an accepted conversation."""
        turns, language = turns_of(row), str(row["provenance"].get("language", ""))
        self.languages[language] += 1
        self.turns[len(turns)] += 1
        for question, answer in turns:
            self._count_length(self.question_lengths, question, language)
            self._count_length(self.answer_lengths, answer, language)
            self.kinds[kind_of_question(simplified(question))] += 1
            self.terms.update(terms_of(question))
        if len(self.terms) > 2 * _MOST_TERMS:
            self.terms = Counter(dict(self.terms.most_common(_MOST_TERMS)))
        self.accepted.add(Example(turns, str(row["article_id"])))

    def add_refused(self, row: dict[str, Any]) -> None:
        """Count a refused conversation."""
        rule, reason = str(row["rule"]), str(row["reason"])
        self.refused.setdefault(rule, Sample(_REFUSED)).add(Example(turns_of(row), str(row["article_id"]), reason))
        kind = (rule, _DETAIL.sub("…", reason))
        self.reasons[kind if kind in self.reasons or len(self.reasons) < _MOST_REASONS else (rule, "others")] += 1

    @staticmethod
    def _count_length(lengths: dict[str, Counter[int]], text: str, language: str) -> None:
        lengths.setdefault(language, Counter())[length_of(text, is_chinese=language == "zh")] += 1


def survey_of(folder: Path, *, pairs: str, refused: str) -> Survey:
    """Count the conversations of a folder.

    Args:
        folder: A folder that `synthesize` wrote.
        pairs: Name of the file of accepted conversations.
        refused: Name of the file of refused ones.

    Raises:
        UserError: If a file is missing or damaged.
    """
    survey, last, num = Survey(), None, 0
    for row in with_progress(rows_of(folder / pairs), "report", "conversations"):
        survey.add(row)
        if num and row["article_id"] != last:  # conversations of one article follow each other
            survey.per_article[num] += 1
            num = 0
        last, num = row["article_id"], num + 1
    if num:
        survey.per_article[num] += 1
    for row in rows_of(folder / refused):
        survey.add_refused(row)
    return survey


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """Read the objects of a file of JSON lines, one at a time.

    Raises:
        UserError: If the file is missing or damaged.
    """
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                yield _row(line, f"{path}:{number}")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); run `synthesize` again.") from None


def _row(line: bytes, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: damaged ({short_reason(error)}); run `synthesize` again.") from None
    if not isinstance(row, dict) or not row.keys() >= _FIELDS:
        raise UserError(f"{place}: damaged (expected {listed(sorted(_FIELDS))}); run `synthesize` again.")
    return row


def turns_of(row: dict[str, Any]) -> Turns:
    """The questions and answers of a conversation in a file."""
    contents = [str(message["content"]) for message in row["messages"]]
    return tuple(zip(contents[::2], contents[1::2], strict=True))


def terms_of(question: str) -> list[str]:
    """The words of a question that tell its topic: content words, or pairs of Chinese characters."""
    units = units_of(question)
    words = [unit for unit in units if len(unit) > 2 and not unit[0].isdigit() and not is_function_word(unit)]
    # only characters that are neighbours in the question: 法国的首都 has no 国首
    characters = set(content_of(question))
    pairs = [
        one + other for one, other in pairwise(units) if {one, other} <= characters and is_cjk(one) and is_cjk(other)
    ]
    return [*words, *pairs]


def quantiles(lengths: Counter[int], *shares: float) -> list[int]:
    """The lengths below which the given shares of all are.

    Args:
        lengths: How often each length occurs; at least one.
        shares: Each from 0 to 1.
    """
    total = lengths.total()
    found = []
    for share in shares:
        left = share * (total - 1)
        for length in sorted(lengths):
            left -= lengths[length]
            if left < 0:
                break
        found.append(length)
    return found
