from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from data_modules.records.formats import FORMATS, recognise_format, to_conversation
from data_modules.records.record import Record

EXPECTED = [("user", "Hi", ""), ("assistant", "Hello", ""), ("user", "Bye", ""), ("assistant", "See you", "")]
CHATS: dict[str, dict[str, Any]] = {
    "messages": {"messages": [{"role": role, "content": text} for role, text, _ in EXPECTED]},
    "sharegpt": {
        "conversations": [
            {"from": {"user": "human", "assistant": "gpt"}[role], "value": text} for role, text, _ in EXPECTED
        ]
    },
    "firefly": {
        "conversation_id": 1,
        "conversation": [{"human": "Hi", "assistant": "Hello"}, {"human": "Bye", "assistant": "See you"}],
    },
    "ultrachat": {"id": "0", "data": ["Hi", "Hello", "Bye", "See you"]},
}
SINGLE: dict[str, tuple[dict[str, Any], list[tuple[str, str, str]]]] = {
    "alpaca": (
        {"instruction": "Add.", "input": "1 2", "output": "3"},
        [("user", "Add.", "1 2"), ("assistant", "3", "")],
    ),
    "prompt_completion": (
        {"prompt": "Add.", "completion": "3"},
        [("user", "Add.", ""), ("assistant", "3", "")],
    ),
    "preference": (
        {"prompt": "Add.", "chosen": "3", "rejected": "4"},
        [("user", "Add.", ""), ("assistant", "3", "")],
    ),
    "text": ({"text": "Once."}, [("text", "Once.", "")]),
}
CASES = {name: (fields, EXPECTED) for name, fields in CHATS.items()} | SINGLE


def turns_of(fields: dict[str, Any], name: str) -> list[tuple[str, str, str]]:
    conversation = to_conversation(Record(fields, "f.json:7"), name)
    return [(turn.role.value, turn.content, turn.context) for turn in conversation.turns]


def test_every_format_has_a_case() -> None:
    assert set(CASES) == set(FORMATS)


@pytest.mark.parametrize("name", CASES)
def test_format_is_recognised_and_read(name: str) -> None:
    fields, expected = CASES[name]
    assert recognise_format(Record(fields, "f.json:7")) == name
    assert turns_of(fields, name) == expected


def test_system_messages_are_kept() -> None:
    fields = {"messages": [{"role": "system", "content": "Be brief."}, *CHATS["messages"]["messages"]]}
    assert turns_of(fields, "messages")[0] == ("system", "Be brief.", "")
    assert turns_of({"system": "Be brief.", **SINGLE["alpaca"][0]}, "alpaca")[0] == ("system", "Be brief.", "")


@pytest.mark.parametrize(
    ("fields", "name", "message"),
    [
        (
            {"instruction": 3, "output": "x"},
            "alpaca",
            r"f.json:7: field 'instruction' is the number 3; expected a string",
        ),
        ({"instruction": "x", "output": ["y"]}, "alpaca", r"f.json:7: field 'output' is a list; expected a string"),
        ({"text": "x"}, "alpaca", r"f.json:7: format 'alpaca' needs the field instruction; found text"),
        ({"messages": "x"}, "messages", r"f.json:7: field 'messages' is the string 'x'; expected a list of turns"),
        (
            {"messages": [{"role": "tool", "content": "x"}]},
            "messages",
            r"turn 1 is 'tool' at the start; expected 'user'",
        ),
        (
            {"messages": [{"role": "user"}]},
            "messages",
            r"messages\[0\] has no field 'content'; expected an object",
        ),
        ({"id": 1, "data": ["a", 2]}, "ultrachat", r"f.json:7: data\[1\] is the number 2; expected a string"),
        ({"conversation": [{"human": "a"}]}, "firefly", r"conversation\[0\] has no field 'assistant'; expected"),
        ({"conversation": [None]}, "firefly", r"conversation\[0\] is null; expected an object with 'human' and"),
        ({"conversations": [["a"]]}, "sharegpt", r"conversations\[0\] is a list; expected an object with 'from'"),
        ({"messages": [{"role": None, "content": "x"}]}, "messages", r"messages\[0\].role is null; expected one of"),
        ({"prompt": None}, "prompt_completion", r"f.json:7: field 'prompt' is null; expected a string"),
        ({"prompt": {"a": 1}}, "prompt_completion", r"field 'prompt' is an object; expected a string"),
        ({"prompt": True}, "prompt_completion", r"field 'prompt' is true; expected a string"),
        ({"prompt": b"x"}, "prompt_completion", r"field 'prompt' is binary data; expected a string"),
        ({"prompt": date(2020, 1, 1)}, "prompt_completion", r"field 'prompt' is a date or time; expected a string"),
        ({"prompt": Decimal("1.5")}, "prompt_completion", r"field 'prompt' is the number 1.5; expected a string"),
        (
            {"prompt": "q", "article_id": [1]},
            "prompt_completion",
            r"'article_id' is a list; expected a string or a number",
        ),
    ],
)
def test_wrong_fields_are_named_with_place(fields: dict[str, Any], name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_conversation(Record(fields, "f.json:7"), name)


def test_unknown_fields_list_the_known_formats() -> None:
    with pytest.raises(ValueError, match=r"f.json:7: no known format has the fields question, response; expected"):
        recognise_format(Record({"question": "a", "response": "b"}, "f.json:7"))


def test_article_id_groups_records() -> None:
    fields = {"article_id": 17, "prompt": "q", "completion": "a"}
    assert to_conversation(Record(fields, "f.json:7"), "prompt_completion").group == "17"


@pytest.mark.parametrize("value", ["", " \n", None, float("nan"), Decimal("NaN"), "NaN", "null", "None", "<NA>"])
def test_blank_article_id_means_no_group(value: object) -> None:
    fields = {"article_id": value, "prompt": "q", "completion": "a"}
    assert to_conversation(Record(fields, "f.json:7"), "prompt_completion").group is None


@pytest.mark.parametrize(("value", "group"), [(0, "0"), ("0", "0"), (" a ", " a "), (1.5, "1.5"), ("nano", "nano")])
def test_article_id_of_any_other_value_is_a_group(value: object, group: str) -> None:
    fields = {"article_id": value, "prompt": "q", "completion": "a"}
    assert to_conversation(Record(fields, "f.json:7"), "prompt_completion").group == group


@pytest.mark.parametrize("value", [[], ["a"], {}, {"a": 1}, True, b"a"])
def test_article_id_of_an_odd_type_is_refused(value: object) -> None:
    fields = {"article_id": value, "prompt": "q", "completion": "a"}
    with pytest.raises(ValueError, match=r"f\.json:7: field 'article_id' is [a-z ]+; expected a string or a number"):
        to_conversation(Record(fields, "f.json:7"), "prompt_completion")


def test_blank_answer_is_a_bare_prompt() -> None:
    assert not to_conversation(Record({"instruction": "x", "output": ""}, "f.json:7"), "alpaca").is_answered
