"""Messages as they are found in public data sets: tools, thinking and weights, each read right or refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from data_modules.records.content_keys import content_key
from tests.data_modules.records.shapes import (
    HI,
    TALK,
    Fields,
    Write,
    alpaca,
    asked,
    chat,
    completion,
    parts,
    read,
    said,
    shared,
    shown,
)

NOW: Fields = {"name": "now", "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}}}
TOOL: Fields = {"type": "function", "function": NOW}
OF_NOW = (json.dumps(TOOL),)

ASK, CALL, RESULT, ANSWER = "user: Time?", 'assistant:  now{"zone": "é"}', "tool: 12:00", "assistant: Noon."
USE = [ASK, CALL, RESULT, ANSWER]


def call(arguments: Any = '{"zone":"\\u00e9"}', **more: Any) -> Fields:
    return {"type": "function", "function": {"name": "now", "arguments": arguments}, **more}


def used(calling: Fields | None = None, result: Fields | None = None, **record: Any) -> Fields:
    """A conversation with a call, in OpenAI's form, with more fields on the call and its result."""
    messages = [
        said("user", "Time?"),
        said("assistant", None, tool_calls=[call()]) | (calling or {}),
        said("tool", "12:00") | (result or {}),
        said("assistant", "Noon."),
    ]
    return {"messages": messages, **record}


def without(fields: Fields, name: str) -> Fields:
    """A conversation whose second message lacks a field."""
    first, second, *others = fields["messages"]
    return fields | {"messages": [first, {k: v for k, v in second.items() if k != name}, *others]}


def hermes(calling: str, result: str) -> Fields:
    return shared(("human", "Time?"), ("gpt", calling), ("tool", result), ("gpt", "Noon."))


IN_TEXT = '<tool_call>\n{"name": "now", "arguments": {"zone": "é"}}\n</tool_call>'
PYTHON_IN_TEXT = "<tool_call>\n{'name': 'now', 'arguments': {}}\n</tool_call>"
R1 = "<think>\nHm.\n</think>\n\nHello"

READ: dict[str, tuple[Fields, list[str]]] = {
    # OpenAI's tools
    "tool calls with null as content": (used(), USE),
    "tool calls with an empty content": (used({"content": ""}), USE),
    "tool calls without a content": (without(used(), "content"), USE),
    "tool calls beside a content": (
        used({"content": "Let me look."}),
        [ASK, 'assistant: Let me look. now{"zone": "é"}', *USE[2:]],
    ),
    "arguments as an object": (used({"tool_calls": [call({"zone": "é"})]}), USE),
    "arguments as an empty text": (used({"tool_calls": [call("")]}), [ASK, "assistant:  now{}", *USE[2:]]),
    "a call without arguments": (
        used({"tool_calls": [{"function": {"name": "now"}}]}),
        [ASK, "assistant:  now{}", *USE[2:]],
    ),
    "a call without `function`": (used({"tool_calls": [call()["function"]]}), USE),
    "tool calls as JSON text": (used({"tool_calls": json.dumps([call()])}), USE),
    "ids of calls": (
        used({"tool_calls": [call(id="a1")]}, {"tool_call_id": "a1"}),
        [ASK, f"{CALL} #a1", f"{RESULT} #a1", ANSWER],
    ),
    "the name of a tool": (used(result={"name": "now"}), [ASK, CALL, f"{RESULT} #now", ANSWER]),
    "two calls and two results": (
        {
            "messages": [
                said("user", "Time?"),
                said("assistant", "", tool_calls=[call(), call({})]),
                said("tool", "12:00"),
                said("tool", "13:00"),
                said("assistant", "Noon."),
            ]
        },
        [ASK, f"{CALL} now{{}}", RESULT, "tool: 13:00", ANSWER],
    ),
    "two rounds of calls": (
        {"messages": [*used()["messages"][:3], *used()["messages"][1:]]},
        [ASK, CALL, RESULT, CALL, RESULT, ANSWER],
    ),
    "a conversation that ends with a call": ({"messages": used()["messages"][:2]}, [ASK, CALL]),
    "another question after a call": (
        {"messages": [*used()["messages"][:2], *asked()["messages"]]},
        [ASK, CALL, *HI],
    ),
    "an empty result": (used(result={"content": ""}), [ASK, CALL, "tool: ", ANSWER]),
    "a result of null": (used(result={"content": None}), [ASK, CALL, "tool: ", ANSWER]),
    "a result of text parts": (used(result={"content": parts("12:", "00")}), USE),
    "a call of the old kind": (
        {
            "messages": [
                said("user", "Time?"),
                said("assistant", None, function_call={"name": "now", "arguments": '{"zone": "é"}'}),
                said("function", "12:00", name="now"),
                said("assistant", "Noon."),
            ]
        },
        [ASK, CALL, f"{RESULT} #now", ANSWER],
    ),
    "the role ipython": (
        {
            "messages": [
                said("user", "Time?"),
                said("assistant", "now()"),
                said("ipython", "12:00"),
                said("assistant", "Noon."),
            ]
        },
        [ASK, "assistant: now()", RESULT, ANSWER],
    ),
    "tools of the record": (used(tools=[TOOL]), USE),
    "tools without calls": (asked(tools=[TOOL]), HI),
    "tools beside alpaca": (alpaca(tools=json.dumps([NOW])), HI),
    "a call of weight 0": (used({"weight": 0}), [ASK, f"assistant, untrained:{CALL[10:]}", *USE[2:]]),
    "a result of weight 0": (used(result={"weight": 0, "train": False}), USE),
    # ShareGPT's and others' tools
    "a function call and an observation": (
        shared(
            ("human", "Time?"),
            ("function_call", '{"name": "now", "arguments": {"zone": "é"}}'),
            ("observation", "12:00"),
            ("gpt", "Noon."),
            tools=json.dumps([NOW]),
        ),
        USE,
    ),
    "a function call as text inside": (
        shared(("human", "Time?"), ("function_call", json.dumps({"name": "now", "arguments": '{"zone": "é"}'}))),
        [ASK, CALL],
    ),
    "two calls as a list": (
        shared(("human", "Time?"), ("function_call", '[{"name": "now", "arguments": {}}, {"name": "now"}]')),
        [ASK, "assistant:  now{} now{}"],
    ),
    "Hermes": (hermes(IN_TEXT, "<tool_response>\n12:00\n</tool_response>"), USE),
    "Hermes with words before the call": (
        hermes(f"Let me look.\n{IN_TEXT}", "<tool_response>12:00</tool_response>\n"),
        [ASK, 'assistant: Let me look. now{"zone": "é"}', *USE[2:]],
    ),
    "Hermes with two results in a message": (
        hermes(IN_TEXT, "<tool_response>\n12:00\n</tool_response>\n<tool_response>\n13:00\n</tool_response>"),
        [ASK, CALL, RESULT, "tool: 13:00", ANSWER],
    ),
    "a call in text that is not JSON stays text": (
        hermes(PYTHON_IN_TEXT, "12:00"),
        [ASK, f"assistant: {PYTHON_IN_TEXT}", *USE[2:]],
    ),
    "a call in text in another spelling stays text": (
        hermes(IN_TEXT.replace(": ", ":"), "12:00"),
        [ASK, f"assistant: {IN_TEXT.replace(': ', ':')}", *USE[2:]],
    ),
    "a call in text without results stays text": (asked(answer={"content": IN_TEXT}), [HI[0], f"assistant: {IN_TEXT}"]),
    # thinking
    "reasoning_content": (asked(answer={"reasoning_content": "\nHm.\n"}), [HI[0], "assistant: (Hm.)Hello"]),
    "reasoning": (asked(answer={"reasoning": "Hm."}), [HI[0], "assistant: (Hm.)Hello"]),
    "thinking": (asked(answer={"thinking": "Hm."}), [HI[0], "assistant: (Hm.)Hello"]),
    "the same thinking twice": (
        asked(answer={"reasoning": "Hm.", "reasoning_content": "Hm."}),
        [HI[0], "assistant: (Hm.)Hello"],
    ),
    "thinking as a part": (
        asked(answer={"content": [{"type": "thinking", "thinking": "Hm.", "signature": "x"}, *parts("Hello")]}),
        [HI[0], "assistant: (Hm.)Hello"],
    ),
    "thinking as a part of parts": (
        asked(answer={"content": [{"type": "thinking", "thinking": parts("H", "m.")}, *parts("Hello")]}),
        [HI[0], "assistant: (Hm.)Hello"],
    ),
    "reasoning as a part": (
        asked(answer={"content": [{"type": "reasoning", "text": "Hm."}, *parts("Hello")]}),
        [HI[0], "assistant: (Hm.)Hello"],
    ),
    "thinking before a call": (used({"reasoning_content": "Hm."}), [ASK, f"assistant: (Hm.){CALL[11:]}", *USE[2:]]),
    "R1's answers": (asked(answer={"content": R1}), [HI[0], "assistant: (Hm.)Hello"]),
    "R1's answers in alpaca": (alpaca(output=R1), [HI[0], "assistant: (Hm.)Hello"]),
    "R1's answers in sharegpt": (shared(("human", "Hi"), ("gpt", R1)), [HI[0], "assistant: (Hm.)Hello"]),
    "a block in another spelling stays text": (
        asked(answer={"content": "<think>Hm.</think>Hello"}),
        [HI[0], "assistant: <think>Hm.</think>Hello"],
    ),
    "an empty block stays text": (
        asked(answer={"content": "<think>\n\n</think>\n\nHello"}),
        [HI[0], "assistant: <think>\n\n</think>\n\nHello"],
    ),
    "a block of a user stays text": (asked(user={"content": R1}), [f"user: {R1}", HI[1]]),
    "a block in the middle stays text": (asked(answer={"content": f"So: {R1}"}), [HI[0], f"assistant: So: {R1}"]),
    # weights
    "a weight of one half": (chat(first={"weight": 0.5}), [HI[0], "assistant, weight 0.5: Hello", *TALK[2:]]),
    "LLaMA-Factory's loss_weight": (chat(last={"loss_weight": 0.25}), [*TALK[:3], "assistant, weight 0.25: See you"]),
    "firefly with a weight": (
        {"conversation": [{"human": "Hi", "assistant": "Hello", "weight": 0.5}]},
        [HI[0], "assistant, weight 0.5: Hello"],
    ),
    "two weights that agree": (asked(answer={"weight": 0.5, "train": 0.5}), [HI[0], "assistant, weight 0.5: Hello"]),
    # other spellings
    "role and content under conversations": ({"conversations": asked()["messages"]}, HI),
    "from and value under messages": ({"messages": shared()["conversations"]}, HI),
    "a prompt and a completion of messages": (
        {"prompt": [said("user", "Hi")], "completion": [said("assistant", "Hello")]},
        HI,
    ),
    "a prompt with an answer, which is not trained": (
        {"prompt": chat()["messages"][:3], "completion": [said("assistant", "See you")]},
        [HI[0], "assistant, untrained: Hello", *TALK[2:]],
    ),
    "a completion with tools": ({"prompt": used()["messages"][:1], "completion": used()["messages"][1:]}, USE),
}

REFUSED: dict[str, tuple[Fields, str]] = {
    "a result without a call before it": (
        {"messages": [said("user", "Time?"), said("tool", "12:00")]},
        "turn 2 is 'tool' after 'user'; expected 'assistant'.*results of tools follow the assistant's calls",
    ),
    "a result at the start": ({"messages": [said("function", "x")]}, "turn 1 is 'tool' at the start"),
    "a question after a result": (
        {"messages": [*used()["messages"][:3], *asked()["messages"]]},
        "turn 4 is 'user' after 'tool'; expected 'assistant'",
    ),
    "arguments that are not JSON": (
        used({"tool_calls": [call("zone")]}),
        r"messages\[1\].tool_calls\[0\].function.arguments is the string 'zone'; expected a JSON object as JSON",
    ),
    "arguments with a name twice": (
        used({"tool_calls": [call('{"a": 1, "a": 2}')]}),
        r"tool_calls\[0\].function.arguments is the string",
    ),
    "arguments that are a list": (used({"tool_calls": [call([1])]}), "arguments is a list; expected a JSON object"),
    "NaN as an argument": (used({"tool_calls": [call('{"a": NaN}')]}), "arguments is the string"),
    "a call without a name": (
        used({"tool_calls": [{"function": {"arguments": "{}"}}]}),
        r"messages\[1\].tool_calls\[0\] is an object without a name; expected a call",
    ),
    "calls that are not a list": (
        used({"tool_calls": 3}),
        r"messages\[1\].tool_calls is the number 3; expected a",
    ),
    "calls of both kinds": (
        used({"function_call": {"name": "now"}}),
        r"messages\[1\]: both tool_calls and function_call are given",
    ),
    "a function call that is not JSON": (
        shared(("human", "Hi"), ("function_call", "now()")),
        r"conversations\[1\].value is the string 'now\(\)'; expected a function call as JSON",
    ),
    "tools that are not JSON": (alpaca(tools="now()"), r"field 'tools' is the string 'now\(\)'; expected a list of"),
    "a tool without a name": (asked(tools=[{"parameters": {}}]), r"tools\[0\] is an object without a name"),
    "tools that are words": (asked(functions=["now"]), r"functions\[0\] is the string 'now'; expected a function"),
    "plain text with tools": ({"text": "Hi", "tools": [TOOL]}, "field 'tools' is a list; plain text has no tools"),
    "calls of the record": (
        asked(tool_calls=[call()]),
        "field 'tool_calls' is a list; a call is read from",
    ),
    "tools of a message": (
        asked({"tools": [TOOL]}),
        r"messages\[0\].tools is a list; functions are read from `tools` of the record",
    ),
    "a tool call as a part": (
        asked(answer={"content": [{"type": "tool_call", "value": "{}"}]}),
        r"content\[0\].type is 'tool_call'; a tool call is read from the field `tool_calls`",
    ),
    "an image as a result": (
        used(result={"content": [{"type": "image_url", "image_url": "a"}]}),
        "only text is supported",
    ),
    "a result to be trained": (
        used(result={"loss_weight": 1.0}),
        "but the message is the tool's; only",
    ),
    "no content and no calls": (
        asked(answer={"content": None, "tool_calls": []}),
        r"messages\[1\].content is null; expected a string",
    ),
    "thinking of a user": (
        asked(user={"thinking": "Hm."}),
        r"messages\[0\].thinking is given, but the message is the user's; only the assistant's",
    ),
    "two kinds of thinking": (
        asked(answer={"thinking": "Hm.", "reasoning": "Ah."}),
        r"messages\[1\]: reasoning and thinking differ",
    ),
    "thinking in a field and in the content": (
        asked(answer={"content": R1, "thinking": "Hm."}),
        r"turn 2 \(assistant\) has thinking both in a field and at the start of its content",
    ),
    "thinking in a field and in a part": (
        asked(answer={"content": [{"type": "thinking", "thinking": "a"}, *parts("Hello")], "thinking": "Hm."}),
        r"messages\[1\] has thinking both in a field and in its content",
    ),
    "thinking after the text": (
        asked(answer={"content": [*parts("Hello"), {"type": "thinking", "thinking": "Hm."}]}),
        r"messages\[1\].content\[1\].type is 'thinking'; only an assistant's message can have thinking, once",
    ),
    "thinking as a number": (
        asked(answer={"thinking": 3}),
        r"messages\[1\].thinking is the number 3; expected a string",
    ),
    "thinking without an answer": (
        asked(answer={"content": "", "thinking": "Hm."}),
        r"turn 2 \(assistant\) is empty",
    ),
    "a weight below 0": (
        asked(answer={"weight": -0.5}),
        r"messages\[1\].weight is the number -0.5; expected a number from 0 to 1",
    ),
    "a prompt of messages with history": (
        {"prompt": [said("user", "Hi")], "completion": [said("assistant", "Hello")], "history": [["a", "b"]]},
        "field 'history' is given, but the prompt already lists all turns",
    ),
    "a prompt of messages with a completion of text": (
        {"prompt": [said("user", "Hi")], "completion": "Hello"},
        "field 'completion' is the string 'Hello'; expected a list of turns",
    ),
    "a prompt of text with a completion of messages": (
        completion(completion=[said("assistant", "Hello")]),
        "field 'completion' is a list; expected a string",
    ),
}


@pytest.mark.parametrize("shape", READ)
def test_a_message_is_read_with_everything_that_changes_its_meaning(write: Write, shape: str) -> None:
    fields, expected = READ[shape]
    (conversation,) = read(write, fields)
    assert shown(conversation) == expected
    assert conversation.tools == (OF_NOW if "tools" in fields else ())


@pytest.mark.parametrize("shape", REFUSED)
def test_a_message_that_cannot_be_read_is_refused_with_its_place(write: Write, shape: str) -> None:
    fields, message = REFUSED[shape]
    with pytest.raises(ValueError, match=rf"rows\.jsonl:1: .*{message}.*`--data\.on_invalid drop`\.$"):
        read(write, fields)


def test_tools_of_every_form_have_one_key(write: Write) -> None:
    named = {"name": "now", "arguments": {"zone": "é"}}
    forms = [
        used(tools=[TOOL]),
        used(tools=[NOW]),
        used(tools=json.dumps([NOW])),
        used(functions=[NOW]),
        used({"tool_calls": [call(id="1")], "reasoning": "Hm."}, {"tool_call_id": "1"}, tools=[TOOL]),
        hermes(IN_TEXT, "<tool_response>\n12:00\n</tool_response>") | {"tools": [NOW]},
        shared(("human", "Time?"), ("function_call", json.dumps(named)), ("observation", "12:00"), ("gpt", "Noon."))
        | {"tools": json.dumps([NOW])},
    ]
    assert len({content_key(read(write, form)[0]) for form in forms}) == 1
    others = [used(), used({"tool_calls": [call({})]}, tools=[TOOL]), used(result={"content": "1"}, tools=[TOOL])]
    assert len({content_key(read(write, form)[0]) for form in (*others, forms[0])}) == 4
