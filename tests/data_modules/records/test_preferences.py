"""Preference pairs: two conversations with one prompt, which stay together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from data_modules.records.content_keys import content_key
from data_modules.records.conversation import Conversation, expand_answers
from data_modules.records.counts import RecordCounts
from data_modules.records.formats import FORMATS, to_conversation
from data_modules.records.record import Record
from data_modules.records.splits import Sources, keys_of, read_conversations, read_splits
from tests.data_modules.records.shapes import Fields, Write, asked, chat, said, shared, shown


def pair(**fields: Any) -> Conversation:
    return to_conversation(Record(fields, "f.jsonl:7"), "preference")


def both(conversation: Conversation) -> tuple[list[str], list[str]]:
    assert conversation.rejected is not None
    assert conversation.rejected.origin == conversation.origin
    return shown(conversation), shown(conversation.rejected)


NO = [said("assistant", "No")]
CALL = said("assistant", "", tool_calls=[{"function": {"name": "now", "arguments": "{}"}}])


@pytest.mark.parametrize(
    ("fields", "prompt"),
    [
        ({"prompt": "Hi", "chosen": "Yes", "rejected": "No"}, ["user: Hi"]),
        (
            {"prompt": "Hi", "system": "Brief.", "chosen": said("assistant", "Yes"), "rejected": "No"},
            ["system: Brief.", "user: Hi"],
        ),
        (
            {"chosen": [said("user", "Hi"), said("assistant", "Yes")], "rejected": asked()["messages"][:1] + NO},
            ["user: Hi"],
        ),
        (
            {"chosen": chat(last={"content": "Yes"})["messages"], "rejected": chat(last={"content": "No"})["messages"]},
            ["user: Hi", "assistant, untrained: Hello", "user: Bye"],
        ),
        (
            {"messages": chat()["messages"][:3], "chosen": "Yes", "rejected": [said("assistant", "No")]},
            ["user: Hi", "assistant, untrained: Hello", "user: Bye"],
        ),
        (
            {**shared(("human", "Hi")), "chosen": {"from": "gpt", "value": "Yes"}, "rejected": "No"},
            ["user: Hi"],
        ),
        (
            {
                "chosen": [said("user", "Hi"), CALL, said("tool", "12"), said("assistant", "Yes")],
                "rejected": [said("user", "Hi"), CALL, said("tool", "12"), said("assistant", "No")],
            },
            ["user: Hi", "assistant, untrained:  now{}", "tool: 12"],
        ),
    ],
)  # fmt: skip
def test_both_answers_follow_the_same_prompt(fields: Fields, prompt: list[str]) -> None:
    assert both(pair(**fields)) == ([*prompt, "assistant: Yes"], [*prompt, "assistant: No"])


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        ({"input": "hello"}, "field 'input' is given without `instruction`, and the prompt does not have it"),
        ({"messages": [said("user", "Bye")]}, "field 'messages' gives another prompt than 'prompt'"),
        ({"messages": [said("system", "Brief."), said("user", "Hi")]}, "field 'messages' gives another prompt"),
        ({"instruction": "Hi", "input": "hello"}, "field 'instruction' gives another prompt than 'prompt'"),
        (shared(("human", "Hi"), ("gpt", "Maybe")), "field 'conversations' gives another prompt than 'prompt'"),
    ],
)
def test_a_second_prompt_is_not_dropped(second: Fields, reason: str) -> None:
    with pytest.raises(ValueError, match=f"f.jsonl:7: {reason}.*Put the whole prompt into one field"):
        pair(prompt="Hi", chosen="Yes", rejected="No", **second)


def test_an_input_beside_whole_conversations_is_not_dropped() -> None:
    answers = {"chosen": [said("user", "Hi"), said("assistant", "Yes")], "rejected": [said("user", "Hi"), *NO]}
    with pytest.raises(ValueError, match="field 'input' is given without `instruction`"):
        pair(**answers, input="hello")
    assert both(pair(**answers, input="Hi")) == both(pair(**answers))


@pytest.mark.parametrize(
    "second",
    [
        {"input": ""},
        {"input": "Hi"},
        {"instruction": "Hi\n"},
        {"messages": [said("user", "Hi")]},
        {"messages": [said("user", "Hi"), said("assistant", "Yes")]},
        {"messages": [said("system", "Brief."), said("user", "Hi"), said("assistant", "Yes")], "system": "Brief."},
        shared(("human", "Hi"), ("gpt", "No")),
    ],
)
def test_a_second_field_may_repeat_the_prompt_or_a_whole_answer(second: Fields) -> None:
    system = {"system": "Brief."} if "system" in second else {}
    alone = pair(prompt="Hi", chosen="Yes", rejected="No", **system)
    assert both(pair(prompt="Hi", chosen="Yes", rejected="No", **second)) == both(alone)


def test_answers_of_several_messages_begin_where_they_differ() -> None:
    asked_for = [said("user", "Hi")]
    other = said("assistant", "", tool_calls=[{"function": {"name": "then", "arguments": "{}"}}])
    chosen, rejected = both(
        pair(
            chosen=[*asked_for, CALL, said("tool", "12"), said("assistant", "Noon.")],
            rejected=[*asked_for, other, said("tool", "12"), said("assistant", "Noon.")],
        )
    )
    assert chosen == ["user: Hi", "assistant:  now{}", "tool: 12", "assistant: Noon."]
    assert rejected == ["user: Hi", "assistant:  then{}", "tool: 12", "assistant: Noon."]


def test_pairs_written_from_votes_are_read_without_a_remark() -> None:
    row = {
        "prompt": [said("user", "Hi"), said("assistant", "Yes?"), said("user", "Bye")],
        "chosen": [said("assistant", "See you")],
        "rejected": [said("assistant", "Go")],
        "chosen_model": "tuned",
        "rejected_model": "base",
        "votes": {"chosen": 2, "rejected": 1, "neither": 0},
    }
    assert FORMATS["preference"].examine(row).unknown == ()
    assert both(pair(**row))[1] == ["user: Hi", "assistant, untrained: Yes?", "user: Bye", "assistant: Go"]


def test_pair_is_one_sample_and_a_prompt_to_predict_has_no_rejected_answer(write: Write) -> None:
    conversation = pair(**{"chosen": chat()["messages"], "rejected": chat(last={"content": "Go"})["messages"]})
    assert expand_answers(conversation) == [conversation]
    files = {"predict": [write("rows.jsonl", [{"prompt": "Hi", "chosen": "Yes", "rejected": "No"}])]}
    (prompt,) = read_conversations("predict", Sources(files, require_answer=False), RecordCounts())
    assert prompt.rejected is None


def test_pairs_that_share_an_answer_share_a_key() -> None:
    one = pair(prompt="Hi", chosen="Yes", rejected="No")
    turned = pair(prompt="Hi", chosen="No", rejected="Yes")
    other = pair(prompt="Hi", chosen="Yes", rejected="Never")
    assert len({content_key(each) for each in (one, turned, other)}) == 3
    assert set(keys_of(one)) == set(keys_of(turned)) != set(keys_of(other))
    assert set(keys_of(one)) & set(keys_of(other)) == {content_key(replace(one, rejected=None))}
    assert len({*keys_of(one, "prompt"), *keys_of(other, "prompt")}) == 1


def test_no_answer_is_in_two_splits(write: Write) -> None:
    rows = [
        {"prompt": f"Question {n % 40}?", "chosen": f"Answer {n % 7}.", "rejected": f"No answer {n % 5}."}
        for n in range(280)
    ]
    sources = Sources({"train": [write("rows.jsonl", rows)]}, {"val": 0.2, "test": 0.2})
    answers: dict[str, set[str]] = {}
    for split, conversation in read_splits(sources):
        answers.setdefault(split, set()).update(keys_of(conversation))
    assert set(answers) == {"train", "val", "test"}
    assert answers["train"].isdisjoint(answers["val"] | answers["test"])
    assert answers["val"].isdisjoint(answers["test"])


RATED: list[tuple[Fields, str, list[str], list[str]]] = [
    ({"prompt": "Hi", "completion": "Hello"}, "prompt_completion", ["user: Hi"], ["assistant: Hello"]),
    (
        {"prompt": [said("user", "Hi")], "completion": [said("assistant", "Hello")]},
        "prompt_completion",
        ["user: Hi"],
        ["assistant: Hello"],
    ),
    (chat(), "messages", ["user: Hi", "assistant, untrained: Hello", "user: Bye"], ["assistant: See you"]),
    (
        {"messages": [said("user", "Hi"), CALL, said("tool", "12"), said("assistant", "Noon")]},
        "messages",
        ["user: Hi"],
        ["assistant:  now{}", "tool: 12", "assistant: Noon"],
    ),
]


@pytest.mark.parametrize("label", [{"label": True}, {"kto_tag": "false"}])
@pytest.mark.parametrize(("fields", "name", "prompt", "answer"), RATED)
def test_a_rated_answer_is_a_pair_with_the_bare_prompt(
    fields: Fields, name: str, prompt: list[str], answer: list[str], label: Fields
) -> None:
    conversation = to_conversation(Record({**fields, **label}, "f.jsonl:7"), name)
    good, bad = [*prompt, *answer], prompt
    assert both(conversation) == ((good, bad) if label == {"label": True} else (bad, good))
    assert conversation.is_unpaired


def test_a_rated_answer_is_kept_with_the_same_answer_and_apart_from_others() -> None:
    row = {"prompt": "Hi", "completion": "Hello"}
    bare, good, bad, other = (
        keys_of(to_conversation(Record({**row, **more}, "f:1"), "prompt_completion"))
        for more in ({}, {"label": True}, {"label": False}, {"label": False, "completion": "Go"})
    )
    assert bare == good == bad
    assert not set(other) & set(good)


def test_a_rated_prompt_without_an_answer_is_a_bare_prompt() -> None:
    conversation = to_conversation(Record({"prompt": "Hi", "label": True}, "f:1"), "prompt_completion")
    assert conversation.rejected is None
