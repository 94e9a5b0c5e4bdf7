"""The tokenizer's own chat template, in the styles of known model families."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
from transformers import PreTrainedTokenizerFast

from data_modules.encoding.counting import ANSWERS_READ
from data_modules.encoding.encoder import Encoder
from data_modules.encoding.ledger import Ledger
from data_modules.errors import UserError
from data_modules.records.conversation import Conversation, Message, Role, expand_answers
from data_modules.rendering.chat_template import ChatTemplate, own_template
from data_modules.rendering.segments import SegmentKind
from tests.chat_templates.comparison import compared
from tests.chat_templates.small_tokenizers import Pieces, small_tokenizer

K = SegmentKind

_LOOP = "{% for m in messages %}"
_USER = _LOOP + "{% if m.role == 'user' %}<u>{{ m.content }}"
_END = "{% endif %}{% endfor %}"
_ASKS = "{% if add_generation_prompt %}"

SPACE = _USER + "<a>{% else %} {{ m.content }} </s>" + _END
EMPTY_THINKING = (
    _USER + "<e>{% else %}<a>{% if loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}<e>\n" + _END
) + (_ASKS + "<a>{% endif %}")
OPEN_THINKING = _USER + "<e>{% else %}<a>{{ m.content }}<e>" + _END + _ASKS + "<a><think>\n{% endif %}"
RENDERED_THINKING = OPEN_THINKING.replace("<a>{{", "<a><think></think>{{")
CLOSED_THINKING = OPEN_THINKING.replace("<think>\n{% endif", "<think></think>{% endif")
OTHER_HEADER = OPEN_THINKING.replace("<think>\n{% endif", "Answer: {% endif")
CHANNEL = (
    _USER + "<e>{% else %}<a><c>final<m>{{ m.content }}{% if loop.last %}</s>{% else %}<e>{% endif %}" + _END
) + (_ASKS + "<a>{% endif %}")
NEXT_ROLE = _USER + "{% else %}<a>\n{{ m.content }}" + _END + _ASKS + "<a>{% endif %}"
NO_END = (
    _LOOP
    + "{% if m.role == 'user' %}User: {{ m.content }}\n{% else %}Bot: {{ m.content }}\n\n"
    + (_END.replace("{% endif %}", "{% endif %}", 1) + _ASKS + "Bot:{% endif %}")
)
BARE = "{% for m in messages %}{% if not loop.first %}\n{% endif %}{{ m.role }}: {{ m.content }}{% endfor %}" + (
    _ASKS + "\nassistant:{% endif %}"
)
SEVERAL_ENDS = _USER + "<e>{% else %}<a>{{ m.content }}<r></s>" + _END + _ASKS + "<a>{% endif %}"
SYSTEM_LAST = (
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set messages = messages[1:] %}"
    "{% endif %}" + _LOOP + "{% if m.role == 'user' %}<u>{% if loop.last and system is defined %}{{ system }}\n"
    "{% endif %}{{ m.content }}<a>{% else %}{{ m.content }}</s>" + _END
)
END_TWICE = _USER + "<e>{% else %}<a><e>{{ m.content }}<e>" + _END + _ASKS + "<a>{% endif %}"
STRIPS_SOME = _USER + "<e>{% else %}<a>{{ m.content.lstrip('\\n') }}<e>" + _END + _ASKS + "<a>{% endif %}"
MARKS = (
    _USER + "<e>{% else %}<a>{% generation %}{{ m.content }}<e>{% endgeneration %}" + _END + _ASKS + "<a>{% endif %}"
)
MARKS_LAST = MARKS.replace("{% generation %}", "{% if loop.last %}{% generation %}").replace(
    "{% endgeneration %}", "{% endgeneration %}{% else %}{{ m.content }}<e>{% endif %}"
)
MARKS_USER = (
    _LOOP
    + "{% generation %}{% if m.role == 'user' %}<u>{{ m.content }}<e>{% else %}<a>{{ m.content }}<e>"
    + ("{% endif %}{% endgeneration %}{% endfor %}" + _ASKS + "<a>{% endif %}")
)


@pytest.fixture(scope="module")
def chat_tokenizer() -> PreTrainedTokenizerFast:
    return small_tokenizer("bytes", eos="</s>", specials=["<u>", "<a>", "<e>", "<c>", "<m>", "<r>"])


def template_of(tokenizer: PreTrainedTokenizerFast, jinja: str) -> ChatTemplate:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = jinja
    return own_template(tokenizer)


def chat(*contents: str, system: str = "") -> Conversation:
    roles = (Role.USER, Role.ASSISTANT)
    turns = [Message(Role.SYSTEM, system)] if system else []
    turns += [Message(roles[index % 2], content) for index, content in enumerate(contents)]
    return Conversation(tuple(turns), "f.json:7")


def parts(template: ChatTemplate, conversation: Conversation) -> list[tuple[str, K]]:
    """The text of each kind; adjacent segments of a kind are joined."""
    found: list[tuple[str, K]] = []
    for part in template.render(conversation):
        if found and found[-1][1] is part.kind:
            found[-1] = (found[-1][0] + part.text, part.kind)
        else:
            found.append((part.text, part.kind))
    return found


@pytest.mark.parametrize(
    ("jinja", "prompt", "answer", "after"),
    [
        (SPACE, "<a>", " 4 </s>", ""),
        (EMPTY_THINKING, "<e><a>", "<think>\n\n</think>\n\n4<e>", "\n"),
        (OPEN_THINKING, "<e><a><think>\n", "\n</think>\n\n4<e>", ""),
        (RENDERED_THINKING, "<e><a><think>\n", "</think>4<e>", ""),
        (CLOSED_THINKING, "<e><a><think></think>", "4<e>", ""),
        (CHANNEL, "<e><a>", "<c>final<m>4</s>", ""),
        (NEXT_ROLE, "<a>", "\n4<u>", ""),
        (SEVERAL_ENDS, "<e><a>", "4<r></s>", ""),
        (MARKS, "<e><a>", "4<e>", ""),
    ],
)
def test_everything_after_the_prompt_up_to_the_end_token_is_the_answer(
    chat_tokenizer: PreTrainedTokenizerFast, jinja: str, prompt: str, answer: str, after: str
) -> None:
    expected = [("<u>", K.TEMPLATE), ("2+2", K.USER), (prompt, K.TEMPLATE), (answer, K.FINAL_ANSWER)]
    template = template_of(chat_tokenizer, jinja)
    assert parts(template, chat("2+2", "4")) == [*expected, *([(after, K.TEMPLATE)] if after else [])]
    assert parts(template, chat("2+2")) == expected[:3]
    assert template.end == ("</s>" if answer.endswith("</s>") else answer[-3:])


@pytest.mark.parametrize(
    ("jinja", "earlier"),
    [
        (SPACE, (" b </s>", K.ANSWER)),
        (NEXT_ROLE, ("\nb<u>", K.ANSWER)),
        (SEVERAL_ENDS, ("b<r></s>", K.ANSWER)),
        (MARKS, ("b<e>", K.ANSWER)),
        (EMPTY_THINKING, ("b", K.CONTEXT_ANSWER)),
        (OPEN_THINKING, ("b", K.CONTEXT_ANSWER)),
        (CHANNEL, ("b", K.CONTEXT_ANSWER)),
        (MARKS_LAST, ("b<e>", K.CONTEXT_ANSWER)),
    ],
)
def test_earlier_answers_are_trained_only_where_the_text_is_as_it_was_generated(
    chat_tokenizer: PreTrainedTokenizerFast, jinja: str, earlier: tuple[str, K]
) -> None:
    template = template_of(chat_tokenizer, jinja)
    conversation = chat("a", "b", "c", "d")
    found = parts(template, conversation)
    assert earlier in found
    assert [kind for _, kind in found].count(K.FINAL_ANSWER) == 1
    if earlier[1] is K.ANSWER:
        before = "".join(text for text, _ in found[: found.index(earlier)])
        assert before == "".join(text for text, _ in parts(template, chat("a")))


def test_one_sample_per_answer_trains_answers_that_are_rendered_differently_later(
    chat_tokenizer: PreTrainedTokenizerFast,
) -> None:
    template = template_of(chat_tokenizer, EMPTY_THINKING)
    texts = [
        ["".join(part.text for part in template.render(sample) if part.kind is K.FINAL_ANSWER)]
        for sample in expand_answers(chat("a", "b", "c", "d"))
    ]
    assert texts == [["<think>\n\n</think>\n\nb<e>"], ["<think>\n\n</think>\n\nd<e>"]]


def test_answers_that_are_only_context_are_counted(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    ledger = Ledger("error")
    template = template_of(chat_tokenizer, EMPTY_THINKING)
    encoder = Encoder(template.tokenizer, template, 10**6)
    excluded = replace(chat("a", "b", "c", "d").turns[1], weight=0.0)
    turns = chat("a", "b", "c", "d", "e", "f").turns
    for conversation in (
        chat("a", "b"),
        replace(chat("a"), turns=turns),
        replace(chat("a"), turns=(*turns[:1], excluded, *turns[2:])),
    ):
        encoder.encode(conversation, ledger)
    assert dict(ledger.changed_turns) == {ANSWERS_READ: 3}


def test_system_message_stays_where_the_prompt_has_it(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    template = template_of(chat_tokenizer, SYSTEM_LAST)
    assert parts(template, chat("a", "b", "c", "d", system="s")) == [
        ("<u>", K.TEMPLATE), ("a", K.USER), ("<a>", K.TEMPLATE), ("b", K.CONTEXT_ANSWER), ("</s><u>", K.TEMPLATE),
        ("s", K.SYSTEM), ("\n", K.TEMPLATE), ("c", K.USER), ("<a>", K.TEMPLATE), ("d</s>", K.FINAL_ANSWER),
    ]  # fmt: skip
    assert [kind for text, kind in parts(template, chat("a", "b", "c", "d")) if text == "b</s>"] == [K.ANSWER]


def test_answer_that_nothing_ends_ends_with_eos(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    found = parts(template_of(chat_tokenizer, BARE), chat("a", "b", "c", "d"))
    assert found[-1] == (" d</s>", K.FINAL_ANSWER)
    assert ("b", K.CONTEXT_ANSWER) in found


def test_only_white_space_that_the_template_strips_is_missing(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    found = parts(template_of(chat_tokenizer, STRIPS_SOME), chat(" a\n", "\n b\n"))
    assert found[1] == (" a\n", K.USER)
    assert found[-1] == (" b\n<e>", K.FINAL_ANSWER)


@pytest.mark.parametrize(
    ("jinja", "reason"),
    [
        (OTHER_HEADER, "its prompt ends with '<e><a>Answer: ', but an answer follows '<e><a>'"),
        (END_TWICE, "an answer has its end token '<e>' before its text too"),
        (MARKS_USER, "its {% generation %} marks include a message that the model does not write"),
        (NO_END, r"an answer is followed by '\n\n', which is not a special token"),
    ],
)
def test_template_is_refused_for_a_reason(chat_tokenizer: PreTrainedTokenizerFast, jinja: str, reason: str) -> None:
    with pytest.raises(UserError) as error:
        template_of(chat_tokenizer, jinja).render(chat("a", "b"))
    assert reason in str(error.value)


@pytest.mark.parametrize(
    ("pieces", "jinja"),
    [
        *((pieces, SPACE) for pieces in ("bytes", "words", "first", "always")),
        *(("words", jinja) for jinja in (EMPTY_THINKING, OPEN_THINKING, CHANNEL, NEXT_ROLE, SYSTEM_LAST, BARE)),
    ],
)
def test_ids_of_prompts_are_those_of_apply_chat_template(pieces: Pieces, jinja: str) -> None:
    tokenizer = small_tokenizer(pieces, eos="</s>", specials=["<u>", "<a>", "<e>", "<c>", "<m>", "<r>"])
    tokenizer.chat_template = jinja
    found = compared(tokenizer)
    assert not found.refused
    assert all(found.prompts)
    assert len(found.prompts) >= 50


@pytest.mark.parametrize("pieces", ["bytes", "words", "first", "always"])
@pytest.mark.parametrize("jinja", [SPACE, SEVERAL_ENDS])
def test_ids_of_whole_conversations_are_those_of_apply_chat_template(pieces: Pieces, jinja: str) -> None:
    tokenizer = small_tokenizer(pieces, eos="</s>", bos="<s>", specials=["<u>", "<a>", "<e>", "<r>"], adds_bos=True)
    tokenizer.chat_template = jinja
    conversation = chat("yes", "once upon a time", "no", ":) is it", "你好", "three")
    (example,) = Encoder(tokenizer, own_template(tokenizer), 10**6).encode(conversation)
    messages = [{"role": turn.role.value, "content": turn.content} for turn in conversation.turns]
    assert example.input_ids.tolist() == tokenizer.apply_chat_template(messages, return_dict=False)


def test_of_several_templates_the_default_is_used(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer = copy.deepcopy(chat_tokenizer)
    tokenizer.chat_template = {"default": SPACE, "tool_use": CHANNEL}
    assert parts(own_template(tokenizer), chat("a", "b"))[-1] == (" b </s>", K.FINAL_ANSWER)
    tokenizer.chat_template = {"rag": SPACE, "tool_use": CHANNEL}
    with pytest.raises(UserError, match="has the chat templates rag, tool_use, but none named 'default'"):
        own_template(tokenizer)
