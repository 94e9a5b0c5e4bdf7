from __future__ import annotations

import copy
import random
from dataclasses import replace

import pytest
from transformers import PreTrainedTokenizerFast

from data_modules.encoding.encoder import Encoder
from data_modules.records.conversation import Conversation, Message, Role
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


def messages(conversation: Conversation) -> list[dict[str, str]]:
    """Messages as documented in docs/exporting.md."""
    return [
        {"role": turn.role.value, "content": turn.content, **({"input": turn.context} if turn.context else {})}
        for turn in conversation.turns
    ]


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
