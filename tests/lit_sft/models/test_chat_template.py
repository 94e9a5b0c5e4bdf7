from __future__ import annotations

import copy
import json
import random
from dataclasses import replace
from typing import Any

import pytest
from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerFast

from data_modules.encoding.encoder import Encoder
from data_modules.records.conversation import Conversation, Message, Role, ToolCall
from data_modules.records.tools import json_text
from data_modules.rendering.segments import SegmentKind
from data_modules.rendering.templates import TEMPLATES, Template, resolve_template
from lit_sft.models.chat_template import jinja_of

WORDS = [
    "a",
    "Hé",
    "你好",
    "👩‍🔬",
    " ",
    "\n",
    "\n\n",
    "'",
    '"',
    "\\",
    "{{ 1 }}",
    "{% if",
    "{user}",
    "### Input:\n",
    "\t",
    "<b>&",
]


def exported(template: Template, tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = jinja_of(template)
    return tokenizer


def filled(name: str, tokenizer: PreTrainedTokenizerFast) -> Template:
    template = resolve_template(name, tokenizer)  # type: ignore[arg-type]
    assert isinstance(template, Template)
    return template


def text(draw: random.Random) -> str:
    return "".join(draw.choices(WORDS, k=draw.randint(1, 6))).strip(" \n\t") or "?"


def random_conversation(draw: random.Random) -> Conversation:
    turns = [Message(Role.SYSTEM, text(draw))] if draw.random() < 0.4 else []
    for _ in range(draw.randint(1, 4)):
        padding = draw.choice(["", " ", "\n"])  # neither is stripped
        turns.append(Message(Role.USER, text(draw) + padding, text(draw) if draw.random() < 0.5 else ""))
        turns.append(Message(Role.ASSISTANT, padding + text(draw)))
    return Conversation(tuple(turns[:-1] if draw.random() < 0.3 else turns), "f:1")


def random_use_of_tools(draw: random.Random) -> Conversation:
    """A conversation with thinking, calls and results, each in some of its messages."""
    turns = [Message(Role.SYSTEM, text(draw))] if draw.random() < 0.4 else []
    for _ in range(draw.randint(1, 3)):
        turns.append(Message(Role.USER, text(draw), text(draw) if draw.random() < 0.3 else ""))
        for _ in range(draw.randint(0, 2)):
            names = draw.choices(["now", "né", 'a"b'], k=draw.randint(1, 3))
            calls = tuple(ToolCall(name, json_text({text(draw): [text(draw), 1.5, None]})) for name in names)
            turns.append(
                Message(Role.ASSISTANT, draw.choice(["", text(draw)]), thinking=thought(draw), tool_calls=calls)
            )
            turns += [Message(Role.TOOL, draw.choice(["", text(draw)])) for _ in calls]
        turns.append(Message(Role.ASSISTANT, text(draw), thinking=thought(draw)))
    tools = tuple(
        json_text({"name": name, "parameters": {}}) for name in draw.choices(["now", "né"], k=draw.randint(0, 2))
    )
    last = draw.randint(1, 2) if turns[-2].role is not Role.SYSTEM else 1
    return Conversation(tuple(turns[: len(turns) + 1 - last]), "f:1", tools=tools)


def thought(draw: random.Random) -> str:
    return text(draw).strip("\n") if draw.random() < 0.5 else ""


def messages(conversation: Conversation) -> list[dict[str, Any]]:
    """Messages as documented in docs/exporting.md."""
    return [
        {
            "role": turn.role.value,
            "content": turn.content,
            **({"input": turn.context} if turn.context else {}),
            **({"reasoning_content": turn.thinking} if turn.thinking else {}),
            **({"tool_calls": [called(call) for call in turn.tool_calls]} if turn.tool_calls else {}),
        }
        for turn in conversation.turns
    ]


def called(call: ToolCall) -> dict[str, Any]:
    return {"type": "function", "function": {"name": call.name, "arguments": json.loads(call.arguments)}}


@pytest.mark.parametrize("name", TEMPLATES)
def test_exported_template_renders_the_trained_text_and_ids(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    draw, template = random.Random(name), filled(name, tokenizer)
    other = exported(template, tokenizer)
    encoder = Encoder(tokenizer, template, 10**6)
    with_input = 0
    for _ in range(150):
        conversation = random_conversation(draw)
        with_input += any(turn.context for turn in conversation.turns)
        given = messages(conversation)
        asks = not conversation.is_answered
        trained = "".join(segment.text for segment in template.render(conversation))
        assert other.apply_chat_template(given, tokenize=False, add_generation_prompt=asks) == trained
        ids = other.apply_chat_template(given, add_generation_prompt=asks, return_dict=False)
        assert ids == encoder.encode(conversation)[0].input_ids.tolist()
    assert 20 < with_input < 140


def test_exported_template_renders_the_trained_text_of_tools_and_thinking(tokenizer: PreTrainedTokenizerFast) -> None:
    draw, template = random.Random(0), filled("chatml", tokenizer)
    other, encoder, seen = exported(template, tokenizer), Encoder(tokenizer, template, 10**6), set()
    for _ in range(200):
        conversation = random_use_of_tools(draw)
        given, tools = messages(conversation), [json.loads(tool) for tool in conversation.tools] or None
        asks = not conversation.is_answered
        trained = "".join(segment.text for segment in template.render(conversation))
        shown = other.apply_chat_template(given, tools=tools, tokenize=False, add_generation_prompt=asks)
        assert shown == trained
        ids = other.apply_chat_template(given, tools=tools, add_generation_prompt=asks, return_dict=False)
        example = encoder.encode(conversation)[0]
        assert ids == example.input_ids.tolist()
        if conversation.is_answered:
            prompt = other.apply_chat_template(given[:-1], tools=tools, add_generation_prompt=True, return_dict=False)
            assert prompt == example.prompt_ids()
        seen |= {"tools" if tools else "", conversation.turns[-1].role, *map(SegmentKind, example.kinds)}
    assert {"tools", Role.TOOL, Role.USER, Role.ASSISTANT, SegmentKind.TOOL_CALL, SegmentKind.THINKING,
            SegmentKind.FINAL_THINKING} <= seen  # fmt: skip


def test_arguments_may_be_json_text_and_calls_bare(tokenizer: PreTrainedTokenizerFast) -> None:
    other = exported(filled("chatml", tokenizer), tokenizer)
    forms = [{"name": "now", "arguments": {"a": 1}}, {"name": "now", "arguments": '{"a": 1}'}]
    calls = [*forms, *({"function": form} for form in forms)]
    given = [[{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": [call]}] for call in calls]
    assert len({other.apply_chat_template(each, tokenize=False) for each in given}) == 1


@pytest.mark.parametrize("name", ["alpaca", "plain"])
def test_exported_template_without_tools_refuses_them(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    other = exported(filled(name, tokenizer), tokenizer)
    user, tool = {"role": "user", "content": "a"}, {"role": "tool", "content": "b"}
    call = {"role": "assistant", "content": "", "tool_calls": [{"name": "now", "arguments": {}}]}
    for given, tools in (([user], [{"name": "now"}]), ([user, call], None), ([user, call, tool], None)):
        with pytest.raises(TemplateError, match=f"The template '{name}' cannot write tools"):
            other.apply_chat_template(given, tools=tools, tokenize=False)


@pytest.mark.parametrize("name", TEMPLATES)
def test_exported_template_encodes_the_same_when_used_for_training(
    name: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    draw, template = random.Random(name), filled(name, tokenizer)
    other = exported(template, tokenizer)
    own = resolve_template("auto", other)
    assert own.name == "tokenizer"
    first, again = Encoder(tokenizer, template, 10**6), Encoder(other, own, 10**6)
    for _ in range(40):
        conversation = random_conversation(draw)
        (a,), (b,) = first.encode(conversation), again.encode(conversation)
        assert a.input_ids.tolist() == b.input_ids.tolist()
        assert a.kinds.tolist() == b.kinds.tolist()


def test_context_follows_the_message_if_the_template_has_no_input_field(tokenizer: PreTrainedTokenizerFast) -> None:
    other = copy.deepcopy(tokenizer)
    other.chat_template = "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}<|im_end|>{% endfor %}" + (
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    conversation = Conversation((Message(Role.USER, "a", "b"), Message(Role.ASSISTANT, "c")), "f:1")
    segments = resolve_template("tokenizer", other).render(conversation)
    assert "".join(segment.text for segment in segments) == "user:a\nb<|im_end|>assistant:c<|im_end|>"


def test_characters_outside_the_basic_plane_are_exported_as_they_are(tokenizer: PreTrainedTokenizerFast) -> None:
    template = replace(filled("plain", tokenizer), user='👩‍🔬 "{user}"\\n\n🤖 ', closing="é")
    conversation = Conversation((Message(Role.USER, "a"), Message(Role.ASSISTANT, "b")), "f:1")
    rendered = exported(template, tokenizer).apply_chat_template(messages(conversation), tokenize=False)
    assert rendered == '👩‍🔬 "a"\\n\n🤖 b<|endoftext|>é'
