"""The ledger of cleaning adds up, whatever the texts and rules, and in whatever order parts of it are added."""

from __future__ import annotations

import json
import pickle
from functools import reduce
from operator import add
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from data_modules.cleaning.cleaner import Cleaner
from data_modules.cleaning.ledger import HEADER, CleaningLedger
from tests.data_modules.cleaning.cases import CHARACTERS
from tests.data_modules.cleaning.markup_cases import MARKUP

ITEMS: list[Any] = [
    *CHARACTERS,
    *(name for name in MARKUP if name != "boilerplate_lines"),
    {"boilerplate_lines": {"patterns": [".*广告.*", "a+"]}},
    {"min_length": {"characters": 2}},
    {"max_length": {"characters": 30}},
]
PIECES = [
    text
    for cases in ({**CHARACTERS, **MARKUP}).values()
    for _, before, after in cases
    for text in (before, after)
    if text and len(text) < 80
]
TEXTS = st.lists(
    st.sampled_from(PIECES)
    | st.text(st.characters(), max_size=8)
    | st.text("（），()[]<b>-{}\n \u3000a中.,`'“”。：", max_size=8),
    max_size=5,
).map("".join)
RULES = st.lists(st.sampled_from(ITEMS), max_size=6)


def removed(ledger: CleaningLedger) -> int:
    return sum(each.removed - each.added + each.dropped_characters for each in ledger.rules.values())


def ledger_of(cleaner: Cleaner, texts: list[tuple[str, str]]) -> CleaningLedger:
    ledger = cleaner.ledger()
    for origin, text in texts:
        ledger.add(cleaner.clean(text), origin)
    return ledger


@given(st.lists(TEXTS, max_size=8), RULES)
def test_ledger_adds_up_for_any_texts_and_rules(texts: list[str], items: list[Any]) -> None:
    cleaner = Cleaner.from_settings(items)
    outcomes = [cleaner.clean(text) for text in texts]
    ledger = ledger_of(cleaner, [(f"a.txt:{i}", text) for i, text in enumerate(texts)])
    kept = [outcome.text for outcome in outcomes if outcome.text is not None]
    assert (ledger.records_read, ledger.characters_read) == (len(texts), sum(map(len, texts)))
    assert (ledger.records_kept, ledger.characters_kept) == (len(kept), sum(map(len, kept)))
    assert ledger.characters_read == ledger.characters_kept + removed(ledger)
    assert ledger.records_read == ledger.records_kept + sum(each.dropped for each in ledger.rules.values())
    for outcome, text in zip(outcomes, texts, strict=True):
        assert all(change.removed >= 0 and change.added >= 0 for change in outcome.changes)
        assert outcome.changes or outcome.text == text


@given(st.lists(TEXTS, min_size=1, max_size=8), RULES, st.data())
def test_ledgers_of_parts_add_up_to_the_whole_in_any_order(texts: list[str], items: list[Any], data: Any) -> None:
    cleaner = pickle.loads(pickle.dumps(Cleaner.from_settings(items)))
    places = [(f"part-{i % 3}.txt:{i}", text) for i, text in enumerate(texts)]
    whole = ledger_of(cleaner, places)
    shuffled = data.draw(st.permutations(places))
    cut = data.draw(st.integers(0, len(texts)))
    parts = [ledger_of(cleaner, shuffled[:cut]), ledger_of(cleaner, shuffled[cut:]), CleaningLedger()]
    merged = reduce(add, data.draw(st.permutations(parts)))
    assert json.dumps(merged.as_dict()) == json.dumps(whole.as_dict())
    assert CleaningLedger.from_dict(json.loads(json.dumps(merged.as_dict()))) == whole


@given(TEXTS, st.sampled_from(ITEMS))
def test_cleaning_twice_is_cleaning_once_for_any_text(text: str, item: Any) -> None:
    cleaner = Cleaner.from_settings([item])
    once = cleaner.clean(text)
    if once.text is not None:
        again = cleaner.clean(once.text)
        assert (again.text, again.changes) == (once.text, ())


@given(TEXTS, RULES)
def test_examples_are_printable(text: str, items: list[Any]) -> None:
    outcome = Cleaner.from_settings(items).clean(text)
    for change in outcome.changes:
        assert (change.before + change.after).isprintable()
        (change.before + change.after + change.reason).encode()


def test_ledger_counts_records_and_characters_by_rule() -> None:
    cleaner = Cleaner.from_settings(["line_ends", "empty_brackets", {"min_length": {"characters": 3}}])
    ledger = ledger_of(
        cleaner, [("b.txt:10", "北京（）\r\n城"), ("b.txt:9", "ab"), ("b.txt:2", "上海（）市很大"), ("a.txt:1", " ")]
    )
    rows = {row[0]: row[1:] for row in ledger.rows()}
    assert list(rows) == ["line_ends", "empty_brackets", "min_length", "empty", "total"]
    assert rows["line_ends"] == ("1", "1", "0", "0", "0")
    assert rows["empty_brackets"] == ("2", "4", "0", "0", "0")
    assert rows["min_length"] == ("0", "0", "0", "2", "3")
    assert rows["total"] == ("", "5", "0", "2", "3")
    assert len(HEADER) == len(ledger.rows()[0])
    assert ledger.summary() == "2 of 4 records kept, 9 of 17 characters"


def test_examples_are_the_first_records_by_file_and_line() -> None:
    cleaner = Cleaner.from_settings(["empty_brackets"])
    ledger = ledger_of(cleaner, [(f"a.txt:{line}", f"第{line}行（）。") for line in (10, 9, 100, 2)])
    examples = ledger.rules["empty_brackets"].examples
    assert [(each.origin, each.before, each.after) for each in examples] == [
        ("a.txt:2", "第2行（）。", "第2行。"),
        ("a.txt:9", "第9行（）。", "第9行。"),
        ("a.txt:10", "第10行（）。", "第10行。"),
    ]


def test_example_shows_the_text_around_the_first_change() -> None:
    outcome = Cleaner.from_settings(["control_characters"]).clean("x" * 100 + "a\u200bb\x1b[31m" + "y" * 100)
    assert outcome.changes[0].before == f"…{'x' * 19}a\\u200bb\\x1b[31m{'y' * 33}…"
    assert outcome.changes[0].after == f"…{'x' * 19}ab[31m{'y' * 35}…"
