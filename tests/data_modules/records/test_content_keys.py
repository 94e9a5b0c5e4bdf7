"""Equal content has one key in every format; near-duplicates have one if the user asks for it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_modules.records.content_keys import KeepTogether, content_key, exact_text, normalized_text
from data_modules.records.conversation import Conversation, Message, Role
from data_modules.records.formats import FORMATS, to_conversation
from data_modules.records.record import Record

LEVELS: tuple[KeepTogether, ...] = ("exact", "normalized", "prompt")


def key(fields: dict[str, Any], format: str, level: KeepTogether = "exact") -> str:
    return content_key(to_conversation(Record(fields, f"{format}.jsonl:1"), format), level)


def pair(question: str, answer: str, level: KeepTogether, *, context: str = "") -> str:
    turns = (Message(Role.USER, question, context), Message(Role.ASSISTANT, answer))
    return content_key(Conversation(turns, "x:1"), level)


def said(role: str, content: str, *, by: tuple[str, str] = ("role", "content")) -> dict[str, str]:
    return dict(zip(by, (role, content), strict=True))


def chat(*contents: str) -> list[dict[str, str]]:
    return [said(("user", "assistant")[index % 2], content) for index, content in enumerate(contents)]


def sharegpt(*contents: str) -> list[dict[str, str]]:
    return [said(("human", "gpt")[index % 2], content, by=("from", "value")) for index, content in enumerate(contents)]


def firefly(*contents: str) -> list[dict[str, str]]:
    return [{"human": contents[i], "assistant": contents[i + 1]} for i in range(0, len(contents), 2)]


BRIEF = {"system": "Be brief."}
SAME: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "a question with material": [
        ("alpaca", {"instruction": "Add these.", "input": "2 and 3", "output": "5"}),
        ("alpaca", {"instruction": "Add these.\n2 and 3", "input": "", "output": "5"}),
        ("alpaca", {"instruction": " Add these.\r\n", "input": "2 and 3 ", "output": "5\n"}),
        ("prompt_completion", {"prompt": "Add these.\n\n2 and 3\n", "completion": " 5"}),
        ("messages", {"messages": chat("Add these.\n2 and 3", "5")}),
        ("messages", {"messages": [said("user", "Add these.\n\n2 and 3"), {**said("assistant", "5"), "weight": 1}]}),
        ("sharegpt", {"conversations": sharegpt("Add these.\n2 and 3", "5")}),
        ("firefly", {"conversation": firefly("Add these.\n2 and 3", "5")}),
        ("ultrachat", {"id": "7", "data": ["Add these.\n2 and 3", "5"]}),
    ],
    "two exchanges with a system message": [
        ("alpaca", {**BRIEF, "history": [["a", "b"]], "instruction": "c", "output": "d"}),
        ("prompt_completion", {**BRIEF, "history": [["a", "b"]], "prompt": "c", "completion": "d"}),
        ("messages", {"messages": [said("system", "Be brief."), *chat(*"abcd")]}),
        ("messages", {"messages": [said("developer", "Be brief."), *chat(*"abcd")]}),
        ("messages", {**BRIEF, "messages": chat(*"abcd")}),
        ("sharegpt", {"system": "Be brief. ", "conversations": sharegpt(*"abcd")}),
        ("firefly", {**BRIEF, "conversation": firefly(*"abcd")}),
        ("ultrachat", {**BRIEF, "id": 1, "data": ["a", "b\n", "\nc", "d"]}),
    ],
    "a pair": [
        ("preference", {"prompt": "Add these.", "chosen": "5", "rejected": "6"}),
        ("preference", {"instruction": "Add these.", "chosen": "5\n", "rejected": said("assistant", "6")}),
        ("preference", {"chosen": chat("Add these.", "5"), "rejected": chat("Add these.", "6")}),
    ],
    "a document": [("text", {"text": "One.\nTwo."}), ("text", {"text": "One. \r\n\nTwo.\n"})],
}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("content", SAME)
def test_equal_content_has_one_key_in_every_format(content: str, level: KeepTogether) -> None:
    assert len({key(fields, format, level) for format, fields in SAME[content]}) == 1


def test_every_format_is_compared() -> None:
    assert {format for rows in SAME.values() for format, _ in rows} == set(FORMATS)


@pytest.mark.parametrize("level", LEVELS)
def test_other_content_has_another_key(level: KeepTogether) -> None:
    keys = {key(rows[0][1], rows[0][0], level) for rows in SAME.values()}
    assert len(keys) == len(SAME)
    one, two = (
        {"messages": [said("user", "a b"), said("assistant", "c")]},
        {"messages": [said("user", "a"), said("assistant", "b"), said("user", "c"), said("assistant", "d")]},
    )
    assert key(one, "messages", level) != key(two, "messages", level)
    assert key({"text": "a"}, "text", level) != key({"prompt": "a"}, "prompt_completion", level)
    assert pair("a", "b", level) != pair("ab", "c", level)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("What is 2+2?", "what is 2+2"),
        ("Hello, World!", "hello  world"),
        ("It's “fine” — really.", "It s 'fine' - really"),
        ("ｆｕｌｌ ｗｉｄｔｈ １２３", "full width 123"),
        ("你好,世界。", "你好世界"),
        ("第 3 章", "第3章"),
        ("Straße", "STRASSE"),
        ("2 * 3", "2*3"),
        ("cafe\u0301", "café"),
        ("soft\u00adhyphen and zero\u200bwidth", "softhyphen and zerowidth"),
        ("snake_case", "snake case"),
    ],
)
def test_normalized_keys_ignore_case_punctuation_and_white_space(one: str, two: str) -> None:
    assert normalized_text(one) == normalized_text(two)
    assert pair(one, "x", "normalized") == pair(two, "x", "normalized")
    assert pair(one, "x", "exact") != pair(two, "x", "exact")


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("3.5", "35"),
        ("2*3", "2/3"),
        ("2 - 3", "2 + 3"),
        ("a + b", "a b"),
        ("x < y", "x > y"),
        ("now here", "nowhere"),
        ("?", "!"),
        ("nice 👍", "nice 👎"),
        ("1,000", "1 000"),
        ("f(1, 2)", "f(12)"),
        ("$5", "€5"),
    ],
)
def test_normalized_keys_keep_words_numbers_and_symbols(one: str, two: str) -> None:
    assert pair(one, "x", "normalized") != pair(two, "x", "normalized")


def test_indentation_and_line_breaks_make_another_exact_text() -> None:
    assert exact_text("  if x:\n\n    y \n\tz\n") == "if x:\n    y\n\tz"
    assert len({pair("q", text, "exact") for text in ("a\n  b", "a\nb", "a b", "ab")}) == 4


def test_the_prompt_is_everything_before_the_first_answer() -> None:
    keys = {pair("Why?", answer, "prompt") for answer in ("Because.", "No idea.")}
    assert keys == {pair("why", "...", "prompt"), pair("WHY", "x", "prompt")}
    system = {"messages": [said("system", "Be kind."), said("user", "Why?"), said("assistant", "x")]}
    assert key(system, "messages", "prompt") not in keys
    longer = {"data": ["Why?", "Because.", "And then?", "Nothing."], "id": 1}
    assert {key(longer, "ultrachat", "prompt")} == keys
    assert pair("Sum up.", "x", "prompt", context="one") != pair("Sum up.", "x", "prompt", context="two")


def test_keys_do_not_depend_on_where_a_record_is_or_what_is_trained() -> None:
    def talk(origin: str, *, trained: bool) -> Conversation:
        turns = (Message(Role.USER, "a"), Message(Role.ASSISTANT, "b", weight=float(trained)))
        return Conversation(turns, origin, group=None if trained else "g")

    for level in LEVELS:
        assert content_key(talk("a:1", trained=True), level) == content_key(talk("b:2", trained=False), level)


@pytest.mark.parametrize("level", LEVELS)
def test_thinking_moves_no_record_however_it_is_written(level: KeepTogether) -> None:
    for answer in ("<think>\nHm.\n</think>\n\nHello", "<think>Hm.</think>Hello", "\n<think>\n\n</think>\nHello"):
        assert pair("Hi", answer, level) == pair("Hi", "Hello", level)
    assert pair("<think>Hm.</think>Hi", "Hello", level) != pair("Hi", "Hello", level)


TEXTS = st.text(st.sampled_from("aB1 \n\t.,*+你_"), min_size=1, max_size=8).filter(str.strip)


@given(TEXTS, TEXTS, TEXTS)
def test_what_is_the_same_stays_the_same_under_a_wider_key(question: str, other: str, answer: str) -> None:
    for narrow, wide in pairwise(LEVELS):
        if pair(question, answer, narrow) == pair(other, answer, narrow):
            assert pair(question, answer, wide) == pair(other, answer, wide)


@given(TEXTS)
def test_normalizing_twice_changes_nothing(text: str) -> None:
    assert normalized_text(normalized_text(text)) == normalized_text(text) != ""
