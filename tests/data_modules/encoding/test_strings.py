"""Prompts are encoded as one string, as every program that sends them to a model encodes them."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from data_modules.encoding.encoder import Encoder
from data_modules.records.conversation import Conversation, Message, Role
from data_modules.rendering.segments import ASSISTANT_KINDS
from data_modules.rendering.segments import SegmentKind as K
from data_modules.rendering.templates import TemplateName, resolve_template
from tests.conftest import byte_tokenizer

EDGES = ["", " ", "\n", "\n\n", ":", "?", ")", "'s", " a", "the", "1", "。", "é", "👩‍🔬", "\t", "###"]
"""Beginnings and ends of contents that tokenizers merge with the text around them."""


MERGES = ["\n \n", "\n\n \n", "? \n", "? \n\n", ": \n", ": )", ") \n", "r e", "e d", "n \n", "\n #", "1 \n"]
"""Pairs that the tokenizer joins, many of them across the end of a message, as Qwen's does."""


def merging() -> PreTrainedTokenizerFast:
    """The tokenizer of bytes, with tokens of several bytes."""
    state = json.loads(byte_tokenizer().backend_tokenizer.to_str())
    model, markers = state["model"], [token["content"] for token in state.pop("added_tokens")]
    shown = {chr(byte): name for name, byte in model["vocab"].items()}
    for pair in MERGES:
        left, right = ("".join(shown[character] for character in part) for part in pair.split(" "))
        model["merges"].append([left, right])
        model["vocab"][left + right] = len(model["vocab"])
    backend = Tokenizer.from_str(json.dumps({**state, "added_tokens": []}))
    backend.add_special_tokens([AddedToken(marker, special=True, normalized=False) for marker in markers])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=markers[0])


def metaspace(scheme: str) -> PreTrainedTokenizerFast:
    """A tokenizer like Llama's: a space mark before a text (`first`) or before every text between markers."""
    words = [
        "▁",
        "▁a",
        "a",
        "b",
        "\n",
        ":",
        "?",
        "▁b",
        "x",
        "▁x",
        "U",
        "s",
        "e",
        "r",
        "A",
        "i",
        "t",
        "n",
        "?\n",
        "\n\n",
        ":\n",
    ]
    vocab = [*(f"<0x{byte:02X}>" for byte in range(256)), *words]
    merges = [("▁", "a"), ("▁", "b"), ("▁", "x"), ("\n", "\n"), (":", "\n"), ("?", "\n")]
    backend = Tokenizer(
        models.BPE({token: index for index, token in enumerate(vocab)}, merges, byte_fallback=True, fuse_unk=True)
    )
    if scheme == "prepend":  # a normaliser, as in the first Llama tokenizers
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return tokenizer


def encoder(tokenizer: PreTrainedTokenizerBase, template: TemplateName) -> Encoder:
    return Encoder(tokenizer, resolve_template(template, tokenizer), 10**6)


def random_text(draw: random.Random) -> str:
    middle = " ".join(draw.choices(["where", "did", "Rowan", "grow", "ab", "12", "你好"], k=draw.randrange(1, 6)))
    return draw.choice(EDGES) + middle + draw.choice(EDGES)


def random_conversation(draw: random.Random, exchanges: int) -> Conversation:
    turns = [Message(Role.SYSTEM, random_text(draw))] if draw.random() < 0.4 else []
    for _ in range(exchanges):
        context = random_text(draw) if draw.random() < 0.4 else ""
        turns += [Message(Role.USER, random_text(draw), context), Message(Role.ASSISTANT, random_text(draw))]
    return Conversation(tuple(turns), "f:1")


def text_of(this: Encoder, conversation: Conversation) -> str:
    return "".join(segment.text for segment in this.template.render(conversation))


@pytest.mark.parametrize("template", ["alpaca", "plain", "chatml"])
def test_a_prompt_has_the_ids_of_its_text(template: TemplateName) -> None:
    tokenizer, draw, merged = merging(), random.Random(0), 0
    this = encoder(tokenizer, template)
    for _ in range(300):
        conversation = random_conversation(draw, 1)
        prompt = conversation.prompt()
        (example,), (trained,) = this.encode(prompt), this.encode(conversation)
        ids = tokenizer(text_of(this, prompt), add_special_tokens=False).input_ids
        assert example.input_ids.tolist() == ids == trained.prompt_ids()
        apart = [tokenizer(part.text, add_special_tokens=False).input_ids for part in this.template.render(prompt)]
        merged += [i for part in apart for i in part] != ids
    assert merged > 100  # the case that matters: tokens across the border of a message


@pytest.mark.parametrize("template", ["alpaca", "plain", "chatml"])
def test_only_answers_and_ends_are_strings_of_their_own(template: TemplateName) -> None:
    tokenizer, draw = merging(), random.Random(1)
    this = encoder(tokenizer, template)
    for _ in range(100):
        conversation = random_conversation(draw, 3)
        expected: list[int] = []
        prompt = ""
        for segment in this.template.render(conversation):
            if segment.kind not in ASSISTANT_KINDS:
                prompt += segment.text
                continue
            for text in filter(None, (prompt, segment.text)):
                expected += tokenizer(text, add_special_tokens=False).input_ids
            prompt = ""
        expected += tokenizer(prompt, add_special_tokens=False).input_ids
        (example,) = this.encode(conversation)
        assert example.input_ids.tolist() == expected


def test_a_token_across_a_border_has_the_kind_of_its_first_character() -> None:
    tokenizer = merging()
    this = encoder(tokenizer, "plain")
    conversation = Conversation((Message(Role.USER, "Where did Rowan grow up?"),), "f:1")
    (example,) = this.encode(conversation)
    place, text = 0, text_of(this, conversation)
    first, last = text.index("Where"), text.index("?")
    for index, kind in zip(example.input_ids.tolist(), example.kinds.tolist(), strict=True):
        assert kind == (K.USER if first <= place <= last else K.TEMPLATE)
        place += len(tokenizer.decode([index]))
    assert place == len(text)


@pytest.mark.parametrize("scheme", ["first", "always", "prepend"])
@pytest.mark.parametrize("template", ["plain", "chatml"])
def test_tokenizers_with_a_space_mark_before_a_text_encode_it_as_part_of_the_whole(
    scheme: str, template: TemplateName
) -> None:
    tokenizer = metaspace(scheme)
    this = encoder(tokenizer, template)
    turns = (Message(Role.USER, "a b?"), Message(Role.ASSISTANT, "a"), Message(Role.USER, "b"))
    for conversation in (Conversation(turns[:1], "f:1"), Conversation(turns, "f:1")):
        (example,) = this.encode(conversation)
        whole = tokenizer(text_of(this, conversation), add_special_tokens=False).input_ids
        assert example.input_ids.tolist() == whole


def test_white_space_that_an_end_token_swallows_is_not_trained() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"eos_token": AddedToken("</s>", special=True, rstrip=True)})
    this = encoder(tokenizer, "plain")
    turns = (Message(Role.USER, "a"), Message(Role.ASSISTANT, " b "), Message(Role.USER, "c"))
    (example,) = this.encode(Conversation(turns, "f:1"))
    text = text_of(this, Conversation(turns, "f:1"))
    assert example.input_ids.tolist() == tokenizer(text, add_special_tokens=False).input_ids
    answer = example.input_ids[example.kinds == K.ANSWER]
    assert tokenizer.decode(answer[:-1]) == " b "


@pytest.mark.parametrize("template", ["alpaca", "plain", "chatml"])
def test_a_shortened_prompt_is_still_one_string(template: TemplateName) -> None:
    tokenizer, draw = merging(), random.Random(2)
    whole, shortened = encoder(tokenizer, template), 0
    for _ in range(150):
        conversation = random_conversation(draw, 1)
        (full,) = whole.encode(conversation)
        for limit in range(40, len(full.input_ids), 7):
            for example in replace(whole, max_length=limit).encode(conversation):
                ids = example.prompt_ids()
                assert tokenizer(tokenizer.decode(ids), add_special_tokens=False).input_ids == ids
                shortened += len(ids) < len(full.prompt_ids())
    assert shortened > 100


@pytest.mark.parametrize("template", ["alpaca", "chatml"])
def test_markers_in_a_prompt_are_text_and_those_around_it_are_tokens(template: TemplateName) -> None:
    tokenizer = merging()
    this = encoder(tokenizer, template)
    end = str(this.template.end)
    conversation = Conversation((Message(Role.USER, f"What is {end}\n?\n"), Message(Role.ASSISTANT, f"a{end}b")), "f:1")
    (example,) = this.encode(conversation)
    assert tokenizer.decode(example.input_ids) == text_of(this, conversation)
    assert (example.input_ids == this.end_token_id).sum() == (2 if template == "chatml" else 1)
    start = tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert (example.input_ids == start).sum() == (2 if template == "chatml" else 0)
