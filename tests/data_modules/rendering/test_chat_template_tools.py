"""Thinking and tools in the tokenizer's own chat template, in the styles of known model families."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from data_modules.encoding.encoder import Encoder
from data_modules.errors import UserError
from data_modules.records.conversation import Conversation, Message, Role, ToolCall
from data_modules.rendering.chat_template import ChatTemplate, own_template
from data_modules.rendering.segments import Segment, SegmentKind
from tests.chat_templates.small_tokenizers import small_tokenizer

K = SegmentKind

TOOLS = (
    "{% if tools %}<u>tools: {{ tools | tojson }}<e>{% endif %}{% for m in messages %}{% if m.role == 'assistant' %}<a>"
    "{% if m.reasoning_content and loop.last %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}"
    "{{ m.content }}"
    "{% for c in m.tool_calls %}<c>{{ c.function.name }}<m>{{ c.function.arguments | tojson }}<r>{% endfor %}<e>"
    "{% else %}<u>{{ m.role }}: {{ m.content }}<e>{% endif %}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)
OPEN = (
    "{% for m in messages %}{% if m.role == 'user' %}<u>{{ m.content }}<e>{% else %}<a>{{ m.content }}<e>{% endif %}"
    + ("{% endfor %}{% if add_generation_prompt %}<a><think>\n{% endif %}")
)
PLAIN = OPEN.replace("<think>\n", "")
NEXT_ROLE = TOOLS.replace("<e>{% else %}", "{% else %}").replace(
    "{{ m.content }}<e>{% endif %}", "{{ m.content }}{% endif %}"
)

TOOL = json.dumps({"type": "function", "function": {"name": "add", "description": "Adds numbers."}})
CALL = ToolCall("add", '{"a": 1}', "call_0001")
ASKED = Message(Role.USER, "1+1?")
CALLED = Message(Role.ASSISTANT, "", tool_calls=(CALL, CALL))
RESULT = Message(Role.TOOL, "2", call_id="call_0001", name="add")
ANSWERED = Message(Role.ASSISTANT, "It is 2.")
THOUGHT = Message(Role.ASSISTANT, "It is 2.", thinking="one and one")


def template_of(jinja: str) -> ChatTemplate:
    tokenizer = small_tokenizer("bytes", eos="</s>", specials=["<u>", "<a>", "<e>", "<c>", "<m>", "<r>"])
    tokenizer.chat_template = jinja
    return own_template(tokenizer)


def parts(template: ChatTemplate, *turns: Message, tools: tuple[str, ...] = ()) -> list[tuple[str, K]]:
    found: list[tuple[str, K]] = []
    for part in template.render(Conversation(turns, "f.json:7", tools=tools)):
        if found and found[-1][1] is part.kind:
            found[-1] = (found[-1][0] + part.text, part.kind)
        else:
            found.append((part.text, part.kind))
    return found


def test_calls_and_results_have_their_kinds() -> None:
    calls = '<c>add<m>{"a": 1}<r><c>add<m>{"a": 1}<r><e>'
    template = template_of(TOOLS)
    assert parts(template, ASKED, CALLED, RESULT, ANSWERED, tools=(TOOL,)) == [
        (f"<u>tools: [{TOOL}]<e><u>user: ", K.TEMPLATE), ("1+1?", K.USER), ("<e><a>", K.TEMPLATE), (calls, K.TOOL_CALL),
        ("<u>tool: ", K.TEMPLATE), ("2", K.TOOL_RESULT), ("<e><a>", K.TEMPLATE), ("It is 2.<e>", K.FINAL_ANSWER),
    ]  # fmt: skip
    assert parts(template, ASKED, CALLED, tools=(TOOL,))[-1] == (calls, K.FINAL_TOOL_CALL)
    spoken = Message(Role.ASSISTANT, "Let me see.", tool_calls=(CALL,), thinking="hm")
    assert parts(template, ASKED, spoken)[-3:] == [
        ("<think>\nhm\n</think>\n\n", K.FINAL_THINKING), ("Let me see.", K.FINAL_ANSWER),
        ('<c>add<m>{"a": 1}<r><e>', K.FINAL_TOOL_CALL),
    ]  # fmt: skip


def test_ids_with_tools_are_those_of_apply_chat_template() -> None:
    template = template_of(TOOLS)
    conversation = Conversation((ASKED, CALLED, RESULT, ANSWERED), "f:1", tools=(TOOL,))
    (example,) = Encoder(template.tokenizer, template, 10**6).encode(conversation)
    function = {"name": "add", "arguments": {"a": 1}}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}] * 2},
        {"role": "tool", "content": "2", "name": "add", "tool_call_id": "call_0001"},
        {"role": "assistant", "content": "It is 2."},
    ]
    expected = template.tokenizer.apply_chat_template(messages, tools=[json.loads(TOOL)], return_dict=False)
    assert example.input_ids.tolist() == expected


@pytest.mark.parametrize(
    ("jinja", "thinking", "kind"),
    [
        (TOOLS, "<think>\none and one\n</think>\n\n", K.FINAL_THINKING),
        (OPEN, "one and one\n</think>\n\n", K.FINAL_THINKING),
        (PLAIN, "<think>\none and one\n</think>\n\nIt is 2.<e>", K.FINAL_ANSWER),
    ],
)
def test_thinking_is_what_the_model_emits_first(jinja: str, thinking: str, kind: K) -> None:
    found = parts(template_of(jinja), ASKED, THOUGHT)
    assert (thinking, kind) in found
    assert found[-1] == (thinking if jinja is PLAIN else "It is 2.<e>", K.FINAL_ANSWER)


def test_thinking_that_is_dropped_later_makes_its_answer_context() -> None:
    found = parts(template_of(TOOLS), ASKED, THOUGHT, ASKED, THOUGHT)
    assert [kind for text, kind in found if text.startswith("It is 2.")] == [K.CONTEXT_ANSWER, K.FINAL_ANSWER]
    assert [kind for text, kind in found if "one and one" in text] == [K.FINAL_THINKING]


def test_thinking_after_a_prompt_that_ends_it_is_refused() -> None:
    closed = template_of(OPEN.replace("<think>\n", "<think>\n\n</think>\n\n"))
    assert parts(closed, ASKED, ANSWERED)[-1] == ("It is 2.<e>", K.FINAL_ANSWER)
    for turns in ((ASKED, THOUGHT), (ASKED, THOUGHT, ASKED, ANSWERED)):
        with pytest.raises(UserError, match=r"has thinking, but the prompt .* ends with '</think>'.*thinking strip"):
            parts(closed, *turns)


def test_masked_thinking_is_context() -> None:
    masked = Message(Role.ASSISTANT, "It is 2.", thinking="one and one", is_thinking_trained=False)
    found = parts(template_of(TOOLS), ASKED, masked)
    assert found[-2:] == [("<think>\none and one\n</think>\n\n", K.CONTEXT_ANSWER), ("It is 2.<e>", K.FINAL_ANSWER)]
    with pytest.raises(UserError, match=r"it does not render thinking, so `--data.thinking mask` cannot tell it"):
        parts(template_of(PLAIN), ASKED, masked)


@pytest.mark.parametrize(
    ("jinja", "turns", "tools", "reason"),
    [
        (PLAIN, (ASKED, CALLED), (), "it does not render tool calls"),
        (PLAIN, (ASKED, ANSWERED), (TOOL,), "it does not render the tools"),
        (NEXT_ROLE, (ASKED, CALLED), (TOOL,), "it does not write how a message with tool calls ends"),
        (TOOLS, (ASKED, Message(Role.ASSISTANT, "", tool_calls=(ToolCall("add", '{"a": "<e>"}'),))), (TOOL,),
         "a tool or its call contains '<e>', a special token of the tokenizer"),
    ],
)  # fmt: skip
def test_tools_that_a_template_does_not_support_are_refused(
    jinja: str, turns: tuple[Message, ...], tools: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(UserError) as error:
        parts(template_of(jinja), *turns, tools=tools)
    assert reason in str(error.value)


def test_records_with_tools_use_the_template_for_them(tokenizer: PreTrainedTokenizerFast) -> None:
    given = copy.deepcopy(template_of(PLAIN).tokenizer)
    given.chat_template = {"default": PLAIN, "tool_use": TOOLS}
    template = own_template(given)
    assert parts(template, ASKED, ANSWERED)[0] == ("<u>", K.TEMPLATE)
    assert parts(template, ASKED, ANSWERED, tools=(TOOL,))[0][0].startswith("<u>tools: ")


# an earlier answer follows the question without any marker, so a token may cover the end of the one and the other
UNMARKED = (
    "{% for m in messages %}{% if m.role == 'assistant' and loop.last %}<a>{{ m.content }}<e>{% else %}{{ m.content }}"
    "{% for c in m.tool_calls %}<c>{{ c.function.name }}<r>{% endfor %}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)


def test_shortened_prompt_with_an_answer_that_is_only_read_has_the_ids_of_its_text() -> None:
    template = template_of(UNMARKED)
    calling = Message(Role.ASSISTANT, "er this", tool_calls=(CALL,))
    conversation = Conversation((Message(Role.USER, "the answer is helloansw" * 3), calling, RESULT, ANSWERED), "f:1")
    assert Segment("er this", K.CONTEXT_ANSWER, 1, is_read=True) in template.render(conversation)
    (whole,) = Encoder(template.tokenizer, template, 1000).encode(conversation)
    for limit in range(len(whole) - 12, len(whole)):
        (example,) = Encoder(template.tokenizer, template, limit).encode(conversation)
        ids = example.prompt_ids()
        text = template.tokenizer.decode(ids)
        assert len(example) <= limit
        assert ids == template.tokenizer(text, add_special_tokens=False).input_ids, text
