"""What each convention trains, spelt out: one token per byte, so that trained tokens are readable text."""

from __future__ import annotations

import re

import pytest
from transformers import PreTrainedTokenizerFast

from data_modules.errors import UserError
from data_modules.records.conversation import Conversation, Message, Role
from data_modules.rendering.convention_table import CONVENTIONS
from data_modules.rendering.conventions import expected_labels, parse_convention, resolve_convention
from data_modules.rendering.templates import TemplateName
from tests.conftest import IM_END, byte_tokenizer

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def dialogue(*contents: str, system: str = "", context: str = "") -> Conversation:
    turns = [Message(Role.USER if i % 2 == 0 else Role.ASSISTANT, text) for i, text in enumerate(contents)]
    turns[0] = Message(Role.USER, contents[0], context=context)
    return Conversation((*([Message(Role.SYSTEM, system)] if system else []), *turns), "row")


def chat_tokenizer(*markers: str, eos: str = "<|im_end|>", bos: str | None = None) -> PreTrainedTokenizerFast:
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(markers)})
    tokenizer.chat_template, tokenizer.eos_token = CHATML, eos
    if bos:
        tokenizer.bos_token = bos
    return tokenizer


def text_of(
    name: str,
    conversation: Conversation,
    *,
    tokenizer: PreTrainedTokenizerFast | None = None,
    template: TemplateName = "auto",
    limit: int = 10**6,
) -> str | None:
    """The conversation as the trainer encodes it, with what it trains in ⟦brackets⟧; None if it is dropped."""
    tokenizer = tokenizer or chat_tokenizer()
    labelled = expected_labels(resolve_convention(name, tokenizer, template), conversation, limit)
    if labelled is None:
        return None
    parts = [
        f"⟦{tokenizer.decode([index])}⟧" if label != -100 else tokenizer.decode([index])
        for index, label in zip(*labelled, strict=True)
    ]
    assert all(label in (-100, index) for index, label in zip(*labelled, strict=True))
    return "".join(parts).replace("⟧⟦", "")


TWO = dialogue("q", "a", "r", "b")
ASKED, AGAIN = "<|im_start|>user\nq<|im_end|>\n", "<|im_start|>user\nr<|im_end|>\n"
HEADER = "<|im_start|>assistant"


@pytest.mark.parametrize(
    ("name", "expected"),
    {
        "firefly": f"{ASKED}{HEADER}\n⟦a<|im_end|>\n⟧{AGAIN}{HEADER}\n⟦b<|im_end|>\n⟧",
        "trl:messages": f"⟦{ASKED}{HEADER}\na<|im_end|>\n{AGAIN}{HEADER}\nb<|im_end|>\n⟧",
        "trl:assistant_only": f"{ASKED}{HEADER}⟦\na<|im_end|>\n⟧{AGAIN}{HEADER}⟦\nb<|im_end|>\n⟧",
        "trl:prompt_completion": f"{ASKED}{HEADER}\na<|im_end|>\n{AGAIN}{HEADER}\n⟦b<|im_end|>\n⟧",
        "llamafactory": f"{ASKED}{HEADER}\n⟦a<|im_end|>\n⟧{AGAIN}{HEADER}\n⟦b<|im_end|>\n⟧",
        "llamafactory:mask_history": f"{ASKED}{HEADER}\na<|im_end|>\n{AGAIN}{HEADER}\n⟦b<|im_end|>\n⟧",
        "llamafactory:train_on_prompt": f"⟦{ASKED}{HEADER}\na<|im_end|>\n{AGAIN}{HEADER}\nb<|im_end|>\n⟧",
        "axolotl": f"{ASKED}{HEADER}\n⟦a<|im_end|>⟧\n{AGAIN}{HEADER}\n⟦b<|im_end|>⟧\n",
        "axolotl:train_on_eos=none": f"{ASKED}{HEADER}\n⟦a⟧<|im_end|>\n{AGAIN}{HEADER}\n⟦b⟧<|im_end|>\n",
        "axolotl:train_on_eos=last": f"{ASKED}{HEADER}\n⟦a⟧<|im_end|>\n{AGAIN}{HEADER}\n⟦b<|im_end|>⟧\n",
        "axolotl:roles_to_train=user,train_on_eos=turn": "<|im_start|>user\n⟦q<|im_end|>⟧\n<|im_start|>assistant\n"
        "a<|im_end|>\n<|im_start|>user\n⟦r<|im_end|>⟧\n<|im_start|>assistant\nb<|im_end|>\n",
        "torchtune": f"{ASKED}⟦{HEADER}\na<|im_end|>\n⟧{AGAIN}⟦{HEADER}\nb<|im_end|>⟧",
        "torchtune:max_seq_len": f"{ASKED}⟦{HEADER}\na<|im_end|>\n⟧{AGAIN}⟦{HEADER}\nb⟧<|im_end|>",
        "minimind": f"{ASKED}{HEADER}\n⟦a<|im_end|>\n⟧{AGAIN}{HEADER}\n⟦b<|im_end|>\n⟧",
    }.items(),
)
def test_conventions_train_different_tokens_of_one_conversation(name: str, expected: str) -> None:
    assert text_of(name, TWO, template="chatml") == expected


def test_axolotl_trains_every_end_token_with_train_on_eos_all() -> None:
    expected = "<|im_start|>user\nq⟦<|im_end|>⟧\n<|im_start|>assistant\n⟦a<|im_end|>⟧\n"
    assert text_of("axolotl:train_on_eos=all", dialogue("q", "a")) == expected


def test_axolotl_does_not_train_an_end_token_that_is_not_the_eos() -> None:
    base = chat_tokenizer(eos="<|endoftext|>")  # as the tokenizers of base Qwen models
    assert text_of("axolotl", dialogue("q", "a"), tokenizer=base) == f"{ASKED}{HEADER}\n⟦a⟧<|im_end|>\n"


def test_stanford_alpaca_trains_the_answer_and_the_eos() -> None:
    shown = text_of("stanford_alpaca", dialogue("q", "a", context="c"), tokenizer=chat_tokenizer(eos="<|endoftext|>"))
    assert shown is not None
    assert shown.startswith("Below is an instruction that describes a task, paired with an input")
    assert shown.endswith("### Instruction:\nq\n\n### Input:\nc\n\n### Response:⟦a<|endoftext|>⟧")


def test_litgpt_trains_the_prompt_unless_it_is_masked() -> None:
    row, tokenizer = dialogue("q", "a", system="s\n"), chat_tokenizer(eos="<|endoftext|>")
    text = "s\n### Instruction:\nq\n\n### Response:\n"
    assert text_of("litgpt", row, tokenizer=tokenizer) == f"⟦{text}a<|endoftext|>⟧"
    assert text_of("litgpt:mask_prompt", row, tokenizer=tokenizer) == f"{text}⟦a<|endoftext|>⟧"
    assert text_of("litgpt:mask_prompt", row, tokenizer=tokenizer, limit=len(text) + 1) == f"{text}⟦a⟧"


def test_litgpt_takes_the_eos_from_an_answer_that_ends_with_it() -> None:
    row, tokenizer = dialogue("q", "a<|endoftext|>", system="s"), chat_tokenizer(eos="<|endoftext|>")
    shown = text_of("litgpt:mask_prompt", row, tokenizer=tokenizer)
    assert shown == "s### Instruction:\nq\n\n### Response:\n⟦a⟧"


def test_ultrachat_trains_answers_and_their_ends_after_plain_headers() -> None:
    tokenizer = chat_tokenizer("<s>", eos="<|endoftext|>", bos="<s>")
    expected = "<s>User: q<|endoftext|>\nAssistant: ⟦a<|endoftext|>⟧\nUser: r<|endoftext|>\nAssistant: ⟦b<|endoftext|>⟧"
    assert text_of("ultrachat", TWO, tokenizer=tokenizer) == expected


def test_nanochat_merges_the_system_text_and_keeps_markers_in_contents_as_text() -> None:
    markers = ("<|bos|>", "<|user_start|>", "<|user_end|>", "<|assistant_start|>", "<|assistant_end|>")
    tokenizer = chat_tokenizer(*markers)
    shown = text_of("nanochat", dialogue("q", "<|bos|>", system="s"), tokenizer=tokenizer)
    assert shown == "<|bos|><|user_start|>s\n\nq<|user_end|><|assistant_start|>⟦<|bos|><|assistant_end|>⟧"
    labelled = expected_labels(resolve_convention("nanochat", tokenizer), dialogue("q", "<|bos|>"))
    assert labelled is not None
    assert labelled[0].count(tokenizer.convert_tokens_to_ids("<|bos|>")) == 1


def test_firefly_strips_contents() -> None:
    assert text_of("firefly", dialogue(" q ", " a\n")) == f"{ASKED}{HEADER}\n⟦a<|im_end|>\n⟧"


@pytest.mark.parametrize("name", ["firefly", "trl:messages", "trl:assistant_only", "llamafactory", "minimind"])
def test_an_answer_that_is_cut_has_no_end_token(name: str) -> None:
    whole = expected_labels(resolve_convention(name, chat_tokenizer()), dialogue("q", "answer"))
    cut = expected_labels(resolve_convention(name, chat_tokenizer()), dialogue("q", "answer"), len(whole[0]) - 3)  # type: ignore[index]
    assert cut is not None
    trained = [index for index, label in zip(*cut, strict=True) if label != -100]
    assert trained
    assert trained[-1] != IM_END


def test_torchtune_replaces_the_last_token_by_an_end_token_that_it_does_not_train() -> None:
    shown = text_of("torchtune:max_seq_len", dialogue("q", "answer"), limit=25)
    assert shown == f"{ASKED}⟦<|im_start|>assistant\nansw⟧<|im_end|>"


def test_llamafactory_cuts_prompt_and_answer_in_proportion() -> None:
    row = dialogue("q" * 100, "a" * 100)
    labelled = expected_labels(resolve_convention("llamafactory", chat_tokenizer()), row, 60)
    assert labelled is not None
    # prompt 118 tokens, answer 102: int(60 * 102 / 220) = 27 of the answer, the rest is prompt
    assert (len(labelled[0]), sum(label != -100 for label in labelled[1])) == (60, 27)


def test_trl_drops_a_row_whose_answer_is_cut_off_and_axolotl_every_row_that_is_too_long() -> None:
    row = dialogue("q" * 50, "answer")
    assert text_of("trl:assistant_only", row, limit=30) is None
    assert text_of("trl:messages", row, limit=30) is not None
    assert text_of("axolotl", row, limit=77) is not None
    assert text_of("axolotl", row, limit=76) is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("trl", "no such convention"),
        ("lamafactory", "did you mean llamafactory?"),
        ("llamafactory:mask_prompt", "expected train_on_prompt or mask_history"),
        ("axolotl:train_on_eos=never", "'train_on_eos=never' is not an option of axolotl"),
        ("firefly:x", "it has none"),
        ("llamafactory:train_on_prompt,mask_history", "choose one"),
    ],
)
def test_an_unknown_convention_or_option_is_an_error(name: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        parse_convention(name)


@pytest.mark.parametrize(
    ("name", "template", "message"),
    [
        ("stanford_alpaca", "chatml", "expected auto or alpaca"),
        ("torchtune", "plain", "expected auto or chatml"),
        ("nanochat", "auto", "needs the token '<|assistant_end|>'"),
        ("ultrachat", "auto", "needs a tokenizer with a bos token"),
    ],
)
def test_a_template_or_tokenizer_that_the_trainer_cannot_use_is_an_error(
    name: str, template: TemplateName, message: str
) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        resolve_convention(name, chat_tokenizer(), template)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("stanford_alpaca", TWO),
        ("litgpt", TWO),
        ("firefly", Conversation((Message(Role.TEXT, "t"),), "row")),
        ("llamafactory", Conversation((*TWO.turns[:1], Message(Role.ASSISTANT, "a", weight=0.0)), "row")),
    ],
)
def test_a_record_that_the_trainer_does_not_read_is_refused_by_name(name: str, row: Conversation) -> None:
    with pytest.raises(UserError, match=rf"row: .*which --data.convention {name} does not train"):
        text_of(name, row)


def test_a_misspelt_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UserError, match=r"trl:mesages: no such convention; expected .*; did you mean trl:messages\?$"):
        parse_convention("trl:mesages")


def test_marks_are_found_in_the_text_that_is_trained_whatever_the_day() -> None:
    tokenizer = chat_tokenizer()
    tokenizer.chat_template = (
        "{{ strftime_now('%A') }}\n{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] + '<|im_end|>' }}"
        "{% else %}{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{% endif %}{% endfor %}"
    )
    trained = text_of("trl:assistant_only", TWO, tokenizer=tokenizer)
    assert trained == "Wednesday\nq<|im_end|>⟦a<|im_end|>⟧r<|im_end|>⟦b<|im_end|>⟧"


def test_every_convention_names_its_source() -> None:
    assert all(convention.source and convention.strings and convention.cut for convention in CONVENTIONS.values())
