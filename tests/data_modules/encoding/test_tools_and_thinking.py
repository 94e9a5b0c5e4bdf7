"""Tool calls, their results and thinking: from the rendering to masks, prompts, truncation and the ledger."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from data_modules.encoding.encoder import Encoder, OverLong
from data_modules.encoding.example import Example
from data_modules.encoding.ledger import Ledger
from data_modules.records.conversation import Conversation, Message, Role, ToolCall, expand_answers
from data_modules.rendering.masking import MASKS
from data_modules.rendering.segments import TRAINED_KINDS, SegmentKind
from data_modules.rendering.templates import TemplateName, resolve_template
from data_modules.sft_data_module import SFTDataModule

MakeData = Callable[..., SFTDataModule]
K = SegmentKind

U, A, T = Role.USER, Role.ASSISTANT, Role.TOOL
NOW, LATER = ToolCall("now", '{"zone": "é"}'), ToolCall("later", "{}")
USE = (
    Message(U, "Time?"),
    Message(A, "Let me look.", thinking="Hm.", tool_calls=(NOW, LATER)),
    Message(T, "12:00"),
    Message(T, "13:00"),
    Message(A, "Noon.", thinking="So."),
)
CALLS = (
    '\n<tool_call>\n{"name": "now", "arguments": {"zone": "é"}}\n</tool_call>'
    '\n<tool_call>\n{"name": "later", "arguments": {}}\n</tool_call><|im_end|>'
)
FIRST = f"<think>\nHm.\n</think>\n\nLet me look.{CALLS}"
LAST = "<think>\nSo.\n</think>\n\nNoon.<|im_end|>"


def talk(*turns: Message, tools: tuple[str, ...] = ()) -> Conversation:
    return Conversation(turns or USE, "f.json:7", tools=tools)


def encoder(
    tokenizer: PreTrainedTokenizerFast,
    limit: int = 10_000,
    over_long: OverLong = "error",
    template: TemplateName = "chatml",
) -> Encoder:
    return Encoder(tokenizer, resolve_template(template, tokenizer), limit, over_long)


def text(example: Example, chosen: Any, tokenizer: PreTrainedTokenizerFast) -> str:
    return str(tokenizer.decode(example.input_ids[chosen], skip_special_tokens=False))


def supervised(conversation: Conversation, mask: str, tokenizer: PreTrainedTokenizerFast) -> str:
    (example,) = encoder(tokenizer).encode(conversation)
    return text(example, example.loss_weights(MASKS[mask]) > 0, tokenizer)


def test_chatml_writes_tools_calls_results_and_thinking(tokenizer: PreTrainedTokenizerFast) -> None:
    segments = encoder(tokenizer).template.render(talk(tools=('{"name": 1}', '{"name": 2}')))
    rendered = "".join(segment.text for segment in segments)
    opening, _, rest = rendered.partition("<|im_end|>\n")
    assert opening.startswith("<|im_start|>system\n# Tools\n")
    assert '<tools>\n{"name": 1}\n{"name": 2}\n</tools>' in opening
    assert rest == (
        f"<|im_start|>user\nTime?<|im_end|>\n<|im_start|>assistant\n{FIRST}\n"
        "<|im_start|>user\n<tool_response>\n12:00\n</tool_response>\n<tool_response>\n13:00\n</tool_response><|im_end|>\n"
        f"<|im_start|>assistant\n{LAST}\n"
    )
    system = encoder(tokenizer).template.render(talk(Message(Role.SYSTEM, "Brief."), *USE, tools=("{}",)))
    assert "".join(segment.text for segment in system).startswith("<|im_start|>system\nBrief.\n\n# Tools\n")


def test_every_kind_has_exactly_its_text(tokenizer: PreTrainedTokenizerFast) -> None:
    (example,) = encoder(tokenizer).encode(talk())
    texts = {kind.name: text(example, example.kinds == kind, tokenizer) for kind in K if kind in example.kinds}
    assert {name: shown for name, shown in texts.items() if name not in ("TEMPLATE", "USER")} == {
        "THINKING": "<think>\nHm.\n</think>\n\n",
        "ANSWER": "Let me look.",
        "TOOL_CALL": CALLS,
        "TOOL_RESULT": "12:0013:00",
        "FINAL_THINKING": "<think>\nSo.\n</think>\n\n",
        "FINAL_ANSWER": "Noon.<|im_end|>",
    }


def test_masks_supervise_what_the_model_emits_and_never_a_result(tokenizer: PreTrainedTokenizerFast) -> None:
    assert supervised(talk(), "output_only", tokenizer) == LAST
    assert supervised(talk(), "firefly_multi_turn", tokenizer) == FIRST + LAST
    ends_with_call = talk(*USE[:2])
    assert supervised(ends_with_call, "output_only", tokenizer) == FIRST
    (example,) = encoder(tokenizer).encode(ends_with_call)
    assert {K.FINAL_THINKING, K.FINAL_ANSWER, K.FINAL_TOOL_CALL} == set(example.kinds) & set(TRAINED_KINDS)


def test_call_without_text_begins_right_after_the_header(tokenizer: PreTrainedTokenizerFast) -> None:
    conversation = talk(Message(U, "Time?"), Message(A, "", tool_calls=(LATER,)))
    assert supervised(conversation, "output_only", tokenizer) == (
        '<tool_call>\n{"name": "later", "arguments": {}}\n</tool_call><|im_end|>'
    )


def test_masked_thinking_is_in_the_text_but_under_no_mask(tokenizer: PreTrainedTokenizerFast) -> None:
    masked = talk(*(replace(turn, is_thinking_trained=False) for turn in USE))
    (example,), (trained,) = (encoder(tokenizer).encode(each) for each in (masked, talk()))
    assert example.input_ids.tolist() == trained.input_ids.tolist()
    assert text(example, example.kinds == K.CONTEXT_ANSWER, tokenizer) == (
        "<think>\nHm.\n</think>\n\n<think>\nSo.\n</think>\n\n"
    )
    assert supervised(masked, "firefly_multi_turn", tokenizer) == f"Let me look.{CALLS}Noon.<|im_end|>"
    assert example.prompt_ids() == trained.prompt_ids()
    ledger = Ledger()
    encoder(tokenizer).encode(masked, ledger)
    assert ledger.untrained_ends == 0
    assert ledger.to_dict()["answers"]["firefly_multi_turn"] == {"read": 2, "cut": 0, "lost": 0}


def test_call_of_weight_0_is_context(tokenizer: PreTrainedTokenizerFast) -> None:
    conversation = talk(USE[0], replace(USE[1], weight=0.0), *USE[2:])
    assert supervised(conversation, "firefly_multi_turn", tokenizer) == LAST
    assert [len(sample.turns) for sample in expand_answers(conversation)] == [5]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_prompt_ends_where_the_model_begins_to_emit(tokenizer: PreTrainedTokenizerFast, count: int) -> None:
    conversation = talk(*USE[:count], tools=('{"type": "function"}',))
    (example,) = encoder(tokenizer).encode(conversation)
    (bare,) = encoder(tokenizer).encode(conversation.prompt())
    assert example.prompt_ids() == bare.input_ids.tolist()
    if conversation.is_answered:
        assert str(tokenizer.decode(example.answer_ids())) == {2: FIRST, 5: LAST}[count]
        assert str(tokenizer.decode(example.prompt_ids())).endswith("<|im_start|>assistant\n")
    elif count != 3:  # there, another result would follow
        assert str(tokenizer.decode(bare.input_ids)).endswith("<|im_end|>\n<|im_start|>assistant\n")


def test_every_assistant_message_is_a_sample(make_data: MakeData, tokenizer: PreTrainedTokenizerFast) -> None:
    samples = expand_answers(talk(*USE, Message(U, "Thanks"), Message(A, "Bye"), tools=("{}",)))
    assert [len(sample.turns) for sample in samples] == [2, 5, 7]
    assert all(sample.tools == ("{}",) for sample in samples)
    calls = [{"function": {"name": "later", "arguments": {}}}]
    row = {"messages": [{"role": "user", "content": "Time?"}, {"role": "assistant", "tool_calls": calls},
                        {"role": "tool", "content": "1"}, {"role": "assistant", "content": "Noon."}]}  # fmt: skip
    data = make_data([row], samples="answer")
    emitted = [text(each, each.loss_weights(data.mask) > 0, tokenizer) for each in data.stores["train"]]
    assert emitted == ['<tool_call>\n{"name": "later", "arguments": {}}\n</tool_call><|im_end|>', "Noon.<|im_end|>"]


def test_exchanges_are_whole() -> None:
    turns = (Message(Role.SYSTEM, "s"), *USE, Message(U, "Thanks"), Message(A, "Bye"), Message(U, "?"))
    conversation = talk(*turns)
    assert [len(exchange) for exchange in conversation.exchanges()] == [5, 2, 1]
    assert conversation.with_exchanges(conversation.exchanges()) == conversation
    assert conversation.with_exchanges(conversation.exchanges()[1:]).turns == (turns[0], *turns[6:])


@pytest.mark.parametrize("over_long", ["truncate", "split", "drop"])
def test_every_length_limit_is_respected_and_every_loss_counted(
    tokenizer: PreTrainedTokenizerFast, over_long: OverLong
) -> None:
    conversation = talk(*USE, Message(U, "Thanks"), Message(A, "Bye"))
    (whole,) = encoder(tokenizer).encode(conversation)
    for limit in range(1, len(whole) + 1, 3):
        ledger = Ledger()
        examples = encoder(tokenizer, limit, over_long).encode(conversation, ledger)
        assert all(len(example) <= limit for example in examples)
        for kind in SegmentKind:
            counts = {reason: tokens[kind] for reason, tokens in ledger.tokens.items()}
            assert counts["read"] == (whole.kinds == kind).sum()
            assert counts["kept"] == sum((example.kinds == kind).sum() for example in examples)
            assert counts["read"] + counts["repeated"] == counts["kept"] + counts["dropped"] + counts["truncated"]
        kept = sum(np.isin(example.kinds, TRAINED_KINDS).sum() for example in examples)
        lost = ledger.to_dict()["supervised_tokens_lost"]["firefly_multi_turn"]
        assert lost == np.isin(whole.kinds, TRAINED_KINDS).sum() - kept
        answers = ledger.to_dict()["answers"]["firefly_multi_turn"]
        assert answers["read"] == 3
        assert 0 <= answers["cut"] + answers["lost"] <= 3


def test_long_result_is_truncated_before_the_question_and_the_answer(tokenizer: PreTrainedTokenizerFast) -> None:
    turns = (*USE[:2], Message(T, "r" * 500), Message(T, "s" * 5), USE[4])
    (example,) = encoder(tokenizer, 500, "truncate").encode(talk(*turns))
    assert text(example, example.kinds == K.TOOL_RESULT, tokenizer).count("s") == 5
    assert 0 < text(example, example.kinds == K.TOOL_RESULT, tokenizer).count("r") < 500
    assert text(example, example.loss_weights(MASKS["firefly_multi_turn"]) > 0, tokenizer) == FIRST + LAST
    assert text(example, example.kinds == K.USER, tokenizer) == "Time?"


@pytest.mark.parametrize("template", ["alpaca", "plain"])
def test_templates_without_tools_refuse_them_by_name(tokenizer: PreTrainedTokenizerFast, template: Any) -> None:
    encode = encoder(tokenizer, template=template).encode
    for conversation in (talk(), talk(USE[0], Message(A, "a"), tools=("{}",)), talk(*USE[:2])):
        with pytest.raises(ValueError, match=rf"f.json:7: template '{template}' cannot write tools.*chatml"):
            encode(conversation)
    (example,) = encode(talk(USE[0], USE[4]))
    end = str(tokenizer.eos_token)
    assert text(example, example.loss_weights(MASKS["output_only"]) > 0, tokenizer) == LAST.replace("<|im_end|>", end)


def test_markers_in_contents_are_encoded_as_before(tokenizer: PreTrainedTokenizerFast) -> None:
    other = copy.deepcopy(tokenizer)
    other.add_tokens(["<think>", "</think>", "<tool_call>"])
    marker = other.convert_tokens_to_ids("<tool_call>")
    conversation = talk(Message(U, "What is <tool_call>?"), Message(A, "<tool_call> calls <|im_end|>."))
    (example,) = encoder(other).encode(conversation)
    assert (example.input_ids == marker).sum() == 2  # as every client encodes it
    assert (example.input_ids == other.convert_tokens_to_ids("<|im_end|>")).sum() == 2  # the template's own only
    (thought,) = encoder(other).encode(talk(USE[0], USE[4]))
    assert (thought.input_ids == other.convert_tokens_to_ids("<think>")).sum() == 1
