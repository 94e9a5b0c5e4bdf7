"""The page and the datasheet: what they count, escaped text of models, damaged files."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from data_modules.errors import UserError
from lit_sft.files import json_line, write_json
from lit_sft.synthesis import survey as survey_module
from lit_sft.synthesis.report import money, write_report
from lit_sft.synthesis.survey import Example, Sample, Survey, quantiles, survey_of, terms_of

EVIL = "<script>alert(1)</script> **bold** [x](http://evil.example) | `a` \x1b[31m"

MakeFolder = Callable[..., Path]


def conversation(question: str, answer: str, article: str = "a", language: str = "en", **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "article_id": article, **more, "provenance": {"language": language}}


PAIRS = [
    conversation("When was the mill built?", "In 1802.", "mill"),
    conversation("Who built the mill?", "Joan Harker.", "mill"),
    conversation("磨坊建于哪年？", "1802年。", "磨坊", "zh"),
]
REFUSED = [
    conversation(
        "Who built it?", "Joan Harker.", "mill", rule="references", reason="does not say what 'it' stands for"
    ),
    conversation("How old is the mill?", "99 years.", "mill", rule="grounded", reason="no number '99'"),
]


def summary_of(pairs: list[dict[str, Any]], refused: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    num = {name: sum(row["rule"] == name for row in refused) for name in ("references", "grounded")}
    total = len(pairs) + len(refused)
    return {
        "recipe": {"name": "pairs", "about": "Questions about an article.", "digest": "0123", "language": "auto"},
        "model": {"name": "writer", "place": "http://127.0.0.1:1/v1", "temperature": 0.7},
        "sources": ["articles.jsonl"],
        "settings": {},
        "subject": "article",
        "subjects": {"read": 4, "accepted": 2, "refused": 1, "failed": 1, "not_reached": 0},
        "pairs": {"read": total, "accepted": len(pairs), "refused": len(refused)},
        "failures": {"not_json": 1},
        "first_reasons": {"not_json": "it is not a JSON object."},
        "invalid": {"not_json": 3},
        "attempts": {"1": 4, "2": 2, "3": 1},
        "rules": [
            {"name": "references", "what": "Refuses pronouns.", "judged": total, "refused": num["references"]},
            {"name": "grounded", "what": "Refuses numbers.", "judged": total - 1, "refused": num["grounded"]},
        ],
        "curve": [[1, 2, 2, 300, 50], [2, 5, 3, 600, 100]],
        "invalid_records": {"count": 0, "first": []},
        "usage": {"replies": 7, "calls": 7, "tokens_read": 700, "tokens_written": 120, "cost": None, "currency": "USD",
                  "unmetered": 0},
        "prices": None,
        "stopped": "",
        **changes,
    }  # fmt: skip


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Writes the files of a synthesis."""

    def _make(pairs: list[dict[str, Any]] = PAIRS, refused: list[dict[str, Any]] = REFUSED, **changes: Any) -> Path:
        (tmp_path / "pairs.jsonl").write_text("".join(map(json_line, pairs)), encoding="utf-8")
        (tmp_path / "refused.jsonl").write_text("".join(map(json_line, refused)), encoding="utf-8")
        write_json(tmp_path / "summary.json", summary_of(pairs, refused, **changes))
        return tmp_path

    return _make


def text_of(page: str) -> str:
    """What a reader of a page sees."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page.partition("</style>")[2])).split())


def test_page_says_what_was_made_and_what_it_took(make_folder: MakeFolder) -> None:
    seen = text_of(write_report(make_folder()).read_text(encoding="utf-8"))
    assert "3 of 5 conversations that the model wrote were accepted (60%), from 2 of 4 articles." in seen
    assert "Of the other articles, 1 without an accepted conversation, 1 failed." in seen
    assert "700 tokens read and 120 written, 273 tokens for each accepted conversation. The cost is unknown: no" in seen
    assert "references 5 1 20.0% Refuses pronouns." in seen
    assert "grounded 4 1 25.0% Refuses numbers." in seen
    assert "Articles that failed fault number the first not_json 1 it is not a JSON object." in seen
    assert "questions, zh 1 characters 6 6 6 6 6" in seen
    assert "mill Who built it? Joan Harker. does not say what 'it' stands for" in seen


@pytest.mark.parametrize(("kind", "about"), [("pair", "about"), ("question", "in answer to"), ("request", "for")])
def test_subjects_that_are_no_articles_are_not_called_so(make_folder: MakeFolder, kind: str, about: str) -> None:
    folder = make_folder(subject=kind)
    seen = text_of(write_report(folder).read_text(encoding="utf-8"))
    assert f"from 2 of 4 {kind}s. Of the other {kind}s, 1 without" in seen
    assert f"A {kind} counts as accepted" in seen
    assert " 4 articles" not in seen
    sheet = (folder / "datasheet.md").read_text(encoding="utf-8")
    assert f"3 conversations that a language model wrote {about} 2 {kind}s." in sheet
    assert f"Of 4 {kind}s, 2 gave" in sheet
    assert f"{kind.capitalize()}s that failed" in seen
    if kind != "pair":
        assert "article" not in seen.replace("articles.jsonl", "").replace("about an article", "")
        assert "the articles" not in sheet


def test_tokens_that_were_not_reported_are_unknown(make_folder: MakeFolder) -> None:
    usage = {"replies": 7, "calls": 7, "tokens_read": 0, "tokens_written": 0, "cost": None, "currency": "USD"}
    folder = make_folder(usage=usage | {"unmetered": 7})
    seen = text_of(write_report(folder).read_text(encoding="utf-8"))
    assert "Tokens unknown (the endpoint reports none). The cost is unknown" in seen
    assert "tokens read unknown" in seen
    assert "0 tokens" not in seen
    assert "tokens unknown" in (folder / "datasheet.md").read_text(encoding="utf-8")
    folder = make_folder(usage=usage | {"unmetered": 3, "tokens_read": 40, "tokens_written": 9})
    seen = text_of(write_report(folder).read_text(encoding="utf-8"))
    assert "At least 40 tokens read and 9 written (the endpoint did not report those of all replies)." in seen


def test_page_shows_money_where_prices_are_known(make_folder: MakeFolder) -> None:
    usage = {"replies": 7, "calls": 7, "tokens_read": 700, "tokens_written": 120, "cost": 0.0123, "currency": "EUR"} | {
        "unmetered": 0
    }
    prices = {"read": 10.0, "written": 40.0, "currency": "EUR"}
    page = write_report(make_folder(usage=usage, prices=prices)).read_text(encoding="utf-8")
    assert "The replies cost 0.0123 EUR, 0.00410 EUR for each accepted conversation" in text_of(page)


@pytest.mark.parametrize(
    ("amount", "expected"), [(0, "0.00"), (12.345, "12.35"), (0.5, "0.500"), (3.6e-5, "0.0000360")]
)
def test_money_is_never_rounded_to_zero(amount: float, expected: str) -> None:
    assert money(amount) == expected


def test_what_models_wrote_is_escaped_everywhere(make_folder: MakeFolder) -> None:
    folder = make_folder(
        [conversation(EVIL, EVIL, EVIL)],
        [conversation(EVIL, EVIL, EVIL, rule="grounded", reason=EVIL)],
        recipe={"name": EVIL, "about": EVIL, "digest": "0", "language": "auto"},
        model={"name": EVIL, "place": EVIL, EVIL: EVIL},
        sources=[EVIL],
        failures={EVIL: 1},
        first_reasons={EVIL: EVIL},
        invalid={EVIL: 1},
        stopped=EVIL,
    )
    page = write_report(folder).read_text(encoding="utf-8")
    assert "<script" not in page.lower()
    assert "\x1b" not in page
    assert text_of(page).count("<script>alert(1)</script>") >= 8
    sheet = (folder / "datasheet.md").read_text(encoding="utf-8")
    assert not [mark for mark in ("<script", "**bold", "](http", "`a`", "\x1b") if mark in sheet]


def test_datasheet_says_what_was_checked_and_what_was_not(make_folder: MakeFolder) -> None:
    folder = make_folder()
    write_report(folder)
    sheet = (folder / "datasheet.md").read_text(encoding="utf-8")
    assert "3 conversations that a language model wrote about 2 articles. No person has read them." in sheet
    assert "- conversations by language: 2 en, 1 zh" in sheet
    assert "| references | 5 | 1 | Refuses pronouns. |" in sheet
    assert "evaluation items were not searched for" in sheet
    assert "numbers and names that no article has" not in sheet  # grounded was applied
    assert sheet.count("*Not recorded. Write it here before you publish the data.*") == 2


def test_report_is_the_same_when_written_again(make_folder: MakeFolder) -> None:
    folder = make_folder()
    first = [(write_report(folder)).read_bytes(), (folder / "datasheet.md").read_bytes()]
    assert [(write_report(folder)).read_bytes(), (folder / "datasheet.md").read_bytes()] == first
    assert sorted(path.name for path in folder.iterdir()) == [
        "datasheet.md", "pairs.jsonl", "refused.jsonl", "report.html", "summary.json",
    ]  # fmt: skip


def test_report_of_nothing(make_folder: MakeFolder) -> None:
    articles = dict.fromkeys(("read", "accepted", "refused", "failed"), 0) | {"not_reached": 0}
    folder = make_folder([], [], subjects=articles, curve=[], rules=[], failures={}, invalid={}, attempts={})
    page = write_report(folder).read_text(encoding="utf-8")
    assert "The model wrote no conversation, about 0 articles." in text_of(page)
    assert "<img" not in page
    assert "conversations by language: none" in (folder / "datasheet.md").read_text(encoding="utf-8")


def test_stopped_run_says_why(make_folder: MakeFolder) -> None:
    folder = make_folder(stopped="requests stopped: 5 requests in a row failed; run the same command again")
    expected = "The run is not complete: 5 requests in a row failed; run the same command again"
    assert expected in text_of(write_report(folder).read_text(encoding="utf-8"))
    assert expected in (folder / "datasheet.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["pairs.jsonl", "refused.jsonl"])
@pytest.mark.parametrize("line", [b"{", b"[]", b'{"messages": []}', b"\xff\xfe"])
def test_damaged_file_is_named_with_its_line(make_folder: MakeFolder, name: str, line: bytes) -> None:
    folder = make_folder()
    (folder / name).write_bytes((folder / name).read_bytes() + line + b"\n")
    number = 1 + len(PAIRS if name == "pairs.jsonl" else REFUSED)
    with pytest.raises(UserError, match=rf"{name}:{number}: damaged .*run `synthesize` again"):
        write_report(folder)


@pytest.mark.parametrize("name", ["pairs.jsonl", "refused.jsonl", "summary.json"])
def test_missing_file_is_named(make_folder: MakeFolder, name: str) -> None:
    folder = make_folder()
    (folder / name).unlink()
    with pytest.raises(UserError, match=name):
        write_report(folder)


def test_sample_does_not_depend_on_order() -> None:
    examples = [Example(((f"Question {n}?", "Yes."),), "a") for n in range(500)]
    samples = []
    for seed in range(3):
        random.Random(seed).shuffle(examples)
        sample = Sample(8)
        for example in examples:
            sample.add(example)
        samples.append(set(sample.examples()))
    assert samples[0] == samples[1] == samples[2]
    assert len(samples[0]) == 8


def test_articles_are_counted_by_their_conversations(make_folder: MakeFolder) -> None:
    rows = [conversation("Why?", "So.", name) for name in ("a", "b", "b", "b", "c", "d", "d", "d")]
    survey = survey_of(make_folder(rows), pairs="pairs.jsonl", refused="refused.jsonl")
    assert survey.per_article == {1: 2, 3: 2}


def test_survey_forgets_rare_words_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey_module, "_MOST_TERMS", 100)
    survey = Survey()
    for number in range(300):
        words = " ".join(f"word{number}x{place}" for place in range(4))
        survey.add(conversation(f"Where is Alden, {words}?", "North."))
    assert len(survey.terms) <= 204
    assert survey.terms["alden"] == 300


def test_terms_are_words_of_english_and_pairs_of_chinese_characters() -> None:
    assert terms_of("When was the mill of Ashford built in 1802?") == ["mill", "ashford", "built"]
    assert terms_of("法国的首都") == ["法国", "首都"]


def test_quantiles_are_lengths_that_occur() -> None:
    lengths = Counter({1: 10, 5: 80, 9: 10})
    assert quantiles(lengths, 0, 0.05, 0.5, 0.95, 1) == [1, 1, 5, 9, 9]
    assert quantiles(Counter({7: 1}), 0, 0.5, 1) == [7, 7, 7]
