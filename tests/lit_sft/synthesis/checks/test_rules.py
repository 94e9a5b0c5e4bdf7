"""Single rules: what they say, what they ask, and what is wrong with their options."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from data_modules.errors import UserError
from lit_sft.synthesis.candidate import Article, Candidate
from lit_sft.synthesis.checks.asking import Messages
from lit_sft.synthesis.checks.checks import Checks
from lit_sft.synthesis.checks.duplicates import DuplicateFinder
from lit_sft.synthesis.checks.judge import Judge
from lit_sft.synthesis.checks.rules import ALL

MILL = Article("mill", "The mill at Ashford was built in 1802 by Joan Harker. It closed in 1936.", "en")
WITHOUT_ARTICLE = Article("", "", "en")


def candidate(*turns: tuple[str, str], article: Article = MILL) -> Candidate:
    return Candidate(turns, article)


def refusal(rule: Any, *turns: tuple[str, str], article: Article = MILL) -> str:
    found = Checks.from_settings([rule]).refusal(candidate(*turns, article=article))
    return found.reason if found else ""


def test_grounded_looks_at_every_turn_and_at_earlier_ones() -> None:
    first = ("Who built the mill at Ashford?", "Joan Harker.")
    assert not refusal("grounded", first, ("When was the mill built?", "In 1802."))
    assert "1803" in refusal("grounded", first, ("When was the mill built?", "In 1803."))
    assert not refusal("grounded", ("How long is 3 times 4 metres?", "Twelve, from 3 and 4."), article=WITHOUT_ARTICLE)


def test_parts_of_grounded_can_be_switched_off() -> None:
    pair = ("When was the mill at Ashford built?", "The mill at Ashford was built in 1803.")
    assert refusal("grounded", pair)
    assert not refusal({"grounded": {"numbers": False}}, pair)
    named = ("Who built the mill at Ashford?", "The mill at Ashford was built by Peter in 1802.")
    assert refusal("grounded", named)
    assert not refusal({"grounded": {"names": False}}, named)


def test_later_questions_may_have_pronouns_but_no_references_to_the_article() -> None:
    first = ("Who built the mill at Ashford?", "Joan Harker.")
    assert not refusal("references", first, ("When did she build it?", "In 1802."))
    assert "According to the text" in refusal("references", first, ("According to the text, when?", "In 1802."))
    assert not refusal({"references": {"pronouns": False}}, ("When did she build it?", "In 1802."))


def test_an_answer_may_name_a_text_that_the_article_is_about() -> None:
    law = Article("law", "Harker wrote a column. In the article she asked for cleaner water.", "en")
    pair = ("What did Harker ask for in her column?", "In the article she asked for cleaner water.")
    assert refusal({"references": {"pronouns": False}}, pair)
    assert not refusal({"references": {"pronouns": False}}, pair, article=law)


def test_related_needs_a_given_question() -> None:
    pair = (("What is the capital of Peru?", "In 1802."),)
    related = Checks.from_settings(["related"])
    assert not related.refusal(Candidate(pair, MILL))
    found = related.refusal(Candidate(pair, MILL, "What did Joan Harker build?"))
    assert found is not None
    assert found.reason == "the given question and answer do not contain 'Peru'"


def test_own_patterns_are_refused_in_answers() -> None:
    rule = {"refusals": {"patterns": ["(?i)copyright", "©"]}}
    assert refusal(rule, ("Who owns the mill?", "Copyright 1999 by Harker."))
    assert not refusal(rule, ("Who owns the copyright?", "Harker."))
    with pytest.raises(UserError, match=r"checks refusals: patterns: '\(' is not a regular expression"):
        Checks.from_settings([{"refusals": {"patterns": ["("]}}])


def test_words_of_the_article_are_no_refusal() -> None:
    poem = Article("poem", "The poem ends: I cannot say what the sea knows.", "en")
    pair = ("How does the poem end?", "I cannot say what the sea knows.")
    assert refusal("refusals", pair)
    assert not refusal("refusals", pair, article=poem)


def test_judge_asks_each_question_with_the_article_and_earlier_turns() -> None:
    asked: list[Messages] = []

    def ask(messages: Messages) -> str:
        asked.append(messages)
        return "In 1936." if "close" in messages[0][1].rpartition("Question:")[2] else "Joan Harker"

    turns = (("Who built the mill?", "Joan Harker."), ("When did it close?", "In 1936."))
    assert not Judge()(candidate(*turns), ask)
    assert [len(messages) for messages in asked] == [1, 1]
    assert all(MILL.text in messages[0][1] for messages in asked)
    assert "Answer: Joan Harker." in asked[1][0][1]
    assert "Answer: Joan Harker." not in asked[0][0][1]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("<think>It says 1802, not 1936.</think>\n\nIn 1802.", ""),
        ("It says 1802, not 1936.</think>In 1802.", ""),
        ("<think>In 1802. Or was it", "the judge gave no answer"),
        ("<think>It was built in 1802.</think>", "the judge gave no answer"),
    ],
)
def test_thoughts_of_the_judge_are_no_answer(reply: str, expected: str) -> None:
    pair = candidate(("When was the mill at Ashford built?", "In 1802."))
    assert Judge()(pair, lambda _: reply).partition(":")[0] == expected


def test_judge_asks_nothing_without_an_article() -> None:
    def ask(_: Messages) -> str:
        raise AssertionError("asked")

    assert not Judge()(candidate(("What is two and two?", "Four."), article=WITHOUT_ARTICLE), ask)


def test_judge_asks_in_the_language_of_the_article() -> None:
    asked: list[Messages] = []

    def ask(messages: Messages) -> str:
        asked.append(messages)
        return "1896年。"

    article = Article("b", "安平桥建于1896年。", "zh")
    assert not Judge()(Candidate((("安平桥建于哪一年？", "1896年。"),), article), ask)
    assert asked[0][0][1].isascii() is False
    assert "Question" not in asked[0][0][1]


def test_a_failed_request_of_the_judge_is_not_a_refusal() -> None:
    class FailedError(Exception):
        pass

    def ask(_: Messages) -> str:
        raise FailedError

    checks = Checks.from_settings(["lengths", "judge"], ask=ask)
    pair = candidate(("When was the mill at Ashford built?", "In 1802."))
    with pytest.raises(FailedError):
        checks.alone(pair)
    assert checks.counts()["judge"] == {"judged": 0, "refused": 0}


def test_a_judge_without_a_model_is_refused() -> None:
    with pytest.raises(UserError, match="checks judge: asks a model, and there is none"):
        Checks.from_settings(["judge"])


def test_single_rules_give_the_same_in_many_threads() -> None:
    rules = ["lengths", "language", "refusals", "references", "self_answered", "grounded"]
    checks = Checks.from_settings(rules)
    pairs = [candidate((f"When was mill {n} at Ashford built?", f"In {1795 + n}.")) for n in range(20)] * 20
    expected = [checks.alone(pair) for pair in pairs]
    found: dict[int, list[Any]] = {}
    threads = [
        threading.Thread(target=lambda n=n: found.__setitem__(n, [checks.alone(pair) for pair in pairs]))  # type: ignore[misc]
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[n] == expected for n in range(4))
    assert 0 < sum(each is None for each in expected) < len(expected)


def test_duplicates_say_which_pair_and_whether_it_is_of_the_same_article() -> None:
    finder = DuplicateFinder(0.8)
    finder.add(candidate(("Who built the mill at Ashford?", "Joan Harker.")))
    finder.add(candidate(("When did the mill at Ashford close?", "1936.")))
    again = ("When did the mill in Ashford close?", "In 1936.")
    assert finder.find(candidate(again)) == "repeats accepted pair 2, about this article: 100% of the words"
    other = Article("other", MILL.text, "en")
    about_another = "repeats accepted pair 2, about another article: 100% of the words"
    assert finder.find(candidate(again, article=other)) == about_another
    none = Article("seed tasks 1", "", "en")
    assert finder.find(candidate(again, article=none)) == "repeats accepted pair 2: 100% of the words"


def test_duplicates_are_found_among_many_questions_of_one_form() -> None:
    finder = DuplicateFinder(0.8)
    for number in range(1000):
        question = candidate((f"When was house {number} of the new town built?", "In 1802."))
        assert not finder.find(question)
        finder.add(question)
    assert "pair 8," in finder.find(candidate(("In which year was house 7 of the new town built?", "1802.")))


def test_memory_of_duplicates_is_bounded_for_each_pair() -> None:
    finder = DuplicateFinder(0.8)
    for number in range(3000):
        finder.add(candidate((f"Which river does bridge number {number} cross?", "The Marsh.")))
    assert finder.num_bytes < 3000 * 600 + 17_000 * 400  # arrays grow by 16,384 pairs


@pytest.mark.parametrize("rule", ALL)
@pytest.mark.parametrize(
    "text", ["", " ", "\n", "?", "。", "\0\ud800", "x" * 100_000, "的" * 20_000, "a.b" * 5000, "1" * 5000]
)
def test_any_text_is_judged(rule: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text(json.dumps({"instruction": "Who is it?", "output": "Me."}), encoding="utf-8")
    options = {"evaluation_items": {"files": [str(tmp_path / "items.jsonl")]}}.get(rule, {})
    for language in ("en", "zh"):
        article = Article("a", text, language)
        checks = Checks.from_settings([{rule: options}], ask=lambda _: text)
        checks.refusal(Candidate(((text, text),), article))
        assert checks.counts()[rule]["judged"] == 1


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "no such file"),
        ('{"text": "a document"}', "no questions (fields: text); expected conversations"),
        ('{"id": 1, "score": 2}', "no questions (fields: id, score)"),
        ("{", "items.jsonl:1"),
        ("", "the file is empty"),
    ],
)
def test_wrong_evaluation_files_are_refused_at_the_start(content: str | None, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        Checks.from_settings([{"evaluation_items": {"files": [str(path)]}}])
    assert str(caught.value).startswith("checks evaluation_items")
    assert expected.lower() in str(caught.value).lower()
    assert "\n" not in str(caught.value)


def test_identity_of_evaluation_items_is_their_content(tmp_path: Path) -> None:
    one, other = tmp_path / "one.jsonl", tmp_path / "other.jsonl"
    row = json.dumps({"instruction": "Who built the mill?", "output": "Joan Harker."})
    for path in (one, other):
        path.write_text(row, encoding="utf-8")

    def identity(path: Path) -> list[Any]:
        return Checks.from_settings([{"evaluation_items": {"files": [str(path)]}}]).identity()

    assert identity(one) == identity(other)
    other.write_text(row.replace("mill", "bridge"), encoding="utf-8")
    assert identity(one) != identity(other)


def test_the_questions_of_the_package_are_evaluation_items() -> None:
    rule = {"evaluation_items": {"files": ["general"]}}
    assert "general.jsonl:" in refusal(rule, ("Which city is the capital of Japan?", "Tokyo."))
    assert not refusal(rule, ("Which city has the best noodles of Japan?", "Fukuoka."))
