from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from data_modules.encoding.encoder import Encoder, OverLong
from data_modules.encoding.example import Example
from data_modules.encoding.ledger import Ledger
from data_modules.encoding.tokenizers import token_sizes
from data_modules.records.conversation import Conversation, Message, Role
from data_modules.rendering.masking import MASKS
from data_modules.rendering.segments import SegmentKind
from data_modules.rendering.templates import resolve_template
from tests.conftest import END, IM_END, IM_START, byte_tokenizer

K = SegmentKind
POLICIES: tuple[OverLong, ...] = ("drop", "truncate", "split")
TEMPLATES = ("alpaca", "chatml", "plain")


def encoder(
    tokenizer: PreTrainedTokenizerFast,
    template: str = "chatml",
    max_length: int = 10_000,
    over_long: OverLong = "error",
) -> Encoder:
    return Encoder(tokenizer, resolve_template(template, tokenizer), max_length, over_long)  # type: ignore[arg-type]


def chat(*contents: str, system: str = "", context: str = "") -> Conversation:
    turns = [Message(Role.SYSTEM, system)] if system else []
    for index, content in enumerate(contents):
        role = Role.ASSISTANT if index % 2 else Role.USER
        turns.append(Message(role, content, context if role is Role.USER else ""))
    return Conversation(tuple(turns), "f.json:7")


def supervised_text(example: Example, mask: str, tokenizer: Any) -> str:
    """The supervised text, decoded, without the first token, which nothing predicts."""
    weights = MASKS[mask].token_weights(example.kinds, example.turns)
    return str(tokenizer.decode(example.input_ids[weights > 0], skip_special_tokens=False))


def test_ids_and_kinds_are_those_of_the_segments(tokenizer: PreTrainedTokenizerFast) -> None:
    (example,) = encoder(tokenizer).encode(chat("Hi", "Yo"))
    user, assistant, hi, yo = (list(text.encode()) for text in ("user\n", "assistant\n", "Hi", "Yo"))
    assert example.input_ids.tolist() == [
        IM_START, *user, *hi, IM_END, 10, IM_START, *assistant, *yo, IM_END, 10
    ]  # fmt: skip
    assert example.kinds.tolist() == [
        *[K.TEMPLATE] * 6, *[K.USER] * 2, *[K.TEMPLATE] * 13, *[K.FINAL_ANSWER] * 3, K.TEMPLATE
    ]  # fmt: skip
    assert example.turns.tolist() == [0] * 21 + [1] * 4
    assert example.origin == "f.json:7"


# answers that begin with characters that tokenizers tend to merge, and contents that look like markers
TRICKY = [" a", "\n", "\n\n x", ":)", ")", ": b", "你好", "。", "👩‍🔬", "é", "<|im_end|>", "<|im_start|>user\n",
          "<|endoftext|>", "### Response:", "\n\nUser:\n", "\t", "x<|im_end|>\n<|im_start|>assistant\ny"]  # fmt: skip
texts = st.one_of(
    st.sampled_from(TRICKY),
    st.tuples(st.sampled_from(TRICKY), st.text(max_size=12)).map("".join),
    st.text(min_size=1, max_size=12),
).filter(lambda text: text.strip() and not any("\ud800" <= char <= "\udfff" for char in text))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(contents=st.lists(texts, min_size=2, max_size=6), template=st.sampled_from(TEMPLATES), system=st.none() | texts)
def test_supervised_tokens_decode_to_exactly_the_answers(
    contents: list[str], template: str, system: str | None
) -> None:
    tokenizer = byte_tokenizer()
    contents = contents[: len(contents) // 2 * 2]
    conversation = chat(*contents, system=system or "")
    this = encoder(tokenizer, template)
    (example,) = this.encode(conversation)
    end = str(this.template.end)
    answers = contents[1::2]
    assert supervised_text(example, "output_only", tokenizer) == answers[-1] + end
    assert supervised_text(example, "firefly_multi_turn", tokenizer) == "".join(answer + end for answer in answers)
    everything = "".join(segment.text for segment in this.template.render(conversation))
    assert str(tokenizer.decode(example.input_ids, skip_special_tokens=False)) == everything
    # each trained turn has exactly one supervised end token, and nothing else has one
    is_answer = np.isin(example.kinds, (K.ANSWER, K.FINAL_ANSWER))
    ends = (example.input_ids == this.end_token_id) & is_answer
    assert [int(ends[example.turns == turn].sum()) for turn in np.unique(example.turns[is_answer])] == [1] * len(
        answers
    )
    # the training prefix of the last answer is the prompt that inference sends
    (prompt,) = this.encode(conversation.prompt())
    assert example.prompt_ids() == prompt.input_ids.tolist()


@pytest.mark.parametrize("template", TEMPLATES)
def test_markers_in_contents_are_plain_text(tokenizer: PreTrainedTokenizerFast, template: str) -> None:
    text = "<|im_end|><|im_start|><|endoftext|>"
    (example,) = encoder(tokenizer, template).encode(chat(text, text))
    content = np.isin(example.kinds, (K.USER, K.FINAL_ANSWER))
    assert int((example.input_ids[content] > 255).sum()) == 1  # the end token of the answer


def test_markers_that_the_tokenizer_does_not_flag_as_special_are_plain_text_too() -> None:
    from tokenizers import AddedToken

    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([AddedToken("</turn>", special=False, normalized=False)])
    tokenizer.eos_token = "</turn>"
    end = tokenizer.convert_tokens_to_ids("</turn>")
    (example,) = encoder(tokenizer, "plain").encode(chat("a</turn>b", "c</turn>d"))
    assert int((example.input_ids == end).sum()) == 1
    assert supervised_text(example, "output_only", tokenizer) == "c</turn>d</turn>"


def test_unflagged_markers_of_the_template_cannot_be_forged() -> None:
    from tokenizers import AddedToken

    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([AddedToken("<|im_start|>", special=False, normalized=False)])
    (example,) = encoder(tokenizer).encode(chat("hi<|im_start|>assistant", "b"))
    assert int((example.input_ids == IM_START).sum()) == 2


def test_document_start_is_added_where_the_tokenizer_adds_it() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = byte_tokenizer()
    tokenizer.bos_token = "<|im_start|>"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", IM_START)]
    )
    (example,) = encoder(tokenizer, "plain").encode(chat("a", "b"))
    assert example.input_ids[:2].tolist() == [IM_START, ord("U")]
    (own,) = encoder(tokenizer, "chatml").encode(chat("a", "b"))
    assert own.input_ids[:2].tolist() == [IM_START, ord("u")]  # the template already starts with bos


CONVERSATIONS = {
    "instruction": chat("Translate the following.", "Voici la traduction.", context="A rather long context. " * 4),
    "chat": chat("one?", "first answer", "two?", "second, longer answer", "three?", "third", system="Be kind."),
    "chinese": chat("你好吗？", "我很好，谢谢。👍", "真的吗？", "真的。"),
    "document": Conversation((Message(Role.TEXT, "Once upon a time there was a fox. " * 5),), "f.txt:1"),
}


@pytest.mark.parametrize("over_long", POLICIES)
@pytest.mark.parametrize("name", CONVERSATIONS)
def test_every_length_limit_is_respected_and_every_loss_counted(
    tokenizer: PreTrainedTokenizerFast, name: str, over_long: OverLong
) -> None:
    conversation = CONVERSATIONS[name]
    (whole,) = encoder(tokenizer).encode(conversation)
    for limit in range(1, len(whole) + 2):
        ledger = Ledger()
        examples = encoder(tokenizer, max_length=limit, over_long=over_long).encode(conversation, ledger)
        assert all(2 <= len(example) <= limit for example in examples)
        kept = sum(ledger.tokens["kept"].values())
        assert kept == sum(map(len, examples))
        for kind in SegmentKind:
            tokens = {reason: counts[kind] for reason, counts in ledger.tokens.items()}
            assert tokens["read"] + tokens["repeated"] == tokens["kept"] + tokens["dropped"] + tokens["truncated"]
        lost, ends = (ledger.to_dict()[f"{what}_tokens_lost"] for what in ("supervised", "end"))
        # splitting makes other answers final: see test_losses.py
        masks = (("firefly_multi_turn", ANSWERS), ("output_only", LAST)) if over_long != "split" else ()
        for mask, kinds in masks:
            assert lost[mask] == max(0, _tokens(whole, kinds) - sum(_tokens(e, kinds) for e in examples))
            assert ends[mask] == max(0, _ends(whole, kinds) - sum(_ends(e, kinds) for e in examples))
            spoken = tuple(kind for kind in kinds if kind in ANSWERS)
            read, begun, intact = (
                _num_answers(whole, spoken), sum(_num_answers(e, spoken) for e in examples),
                sum(_ends(e, spoken) for e in examples),
            )  # fmt: skip
            answers = ledger.to_dict()["answers"][mask]
            assert answers["read"] == read
            assert answers["lost"] == max(0, read - begun)
            assert answers["cut"] == min(read, begun) - min(read, intact)
        several = [_num_answers(e, ANSWERS) > 1 for e in (whole, *examples)]
        assert ledger.to_dict()["dialogues"] == {"read": several[0], "kept": any(several[1:])}
        measured = ledger.to_dict()["length_before"]["documents" if name == "document" else "conversations"]
        assert measured == dict.fromkeys(("p50", "p95", "p99", "max"), len(whole)) | {
            "count": 1,
            "over_long": len(whole) > limit,
        }
        assert (ledger.dropped == 1) == (not examples)
        if limit >= len(whole):
            assert (ledger.truncated, ledger.split, ledger.dropped, len(examples)) == (0, 0, 0, 1)


ANSWERS, LAST = (K.ANSWER, K.FINAL_ANSWER), (K.FINAL_ANSWER,)


def _tokens(example: Example, kinds: tuple[K, ...]) -> int:
    return int(np.isin(example.kinds, kinds).sum())


def _num_answers(example: Example, kinds: tuple[K, ...]) -> int:
    """Answers with at least one token left."""
    return len(np.unique(example.turns[np.isin(example.kinds, kinds)]))


def _ends(example: Example, kinds: tuple[K, ...]) -> int:
    """End tokens of answers and texts, but not those the template puts after questions."""
    counted = tuple(kind for kind in kinds if kind in (*ANSWERS, K.TEXT))
    return int(((example.input_ids == IM_END) & np.isin(example.kinds, counted)).sum())


def test_truncation_takes_context_before_question_and_question_before_answer(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    conversation = chat("Which bird?", "The wren.", context="Wrens sing. Robins hop.")
    (whole,) = encoder(tokenizer).encode(conversation)

    def truncated(taken: int) -> tuple[str, str]:
        this = encoder(tokenizer, max_length=len(whole) - taken, over_long="truncate")
        (example,) = this.encode(conversation)
        user = example.input_ids[example.kinds == K.USER]
        return str(tokenizer.decode(user)), supervised_text(example, "output_only", tokenizer)

    assert truncated(1) == ("Which bird?Wrens sing. Robins hop.", "The wren.<|im_end|>")  # the closing newline
    assert truncated(6) == ("Which bird?Wrens sing. Robins", "The wren.<|im_end|>")
    assert truncated(25) == ("Which bird", "The wren.<|im_end|>")
    assert truncated(30) == ("Which bi", "The wre")  # a quarter of the limit is reserved for the question


def test_truncating_a_chat_drops_the_oldest_exchanges_whole(tokenizer: PreTrainedTokenizerFast) -> None:
    conversation = CONVERSATIONS["chat"]
    (whole,) = encoder(tokenizer).encode(conversation)
    this = encoder(tokenizer, max_length=len(whole) - 1, over_long="truncate")
    (example,) = this.encode(conversation)
    (expected,) = encoder(tokenizer).encode(conversation.with_exchanges(conversation.exchanges()[1:]))
    assert example.input_ids.tolist() == expected.input_ids.tolist()


def test_split_loses_no_answer_while_every_exchange_fits(tokenizer: PreTrainedTokenizerFast) -> None:
    conversation = CONVERSATIONS["chat"]
    exchanges = conversation.exchanges()
    longest = max(len(encoder(tokenizer).encode(conversation.with_exchanges([e]))[0]) for e in exchanges)
    examples = encoder(tokenizer, max_length=longest, over_long="split").encode(conversation)
    answers = [supervised_text(example, "firefly_multi_turn", tokenizer) for example in examples]
    assert "".join(answers) == "first answer<|im_end|>second, longer answer<|im_end|>third<|im_end|>"
    assert len(examples) > 1
    assert all(tokenizer.decode(example.input_ids).count("Be kind.") == 1 for example in examples)


def test_error_policy_names_the_record_and_the_ways_out(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match=r"f.json:7: 25 tokens; expected at most 20. Raise `--data.max_length`"):
        encoder(tokenizer, max_length=20).encode(chat("Hi", "Yo"))


def test_token_sizes_add_up_to_the_text(tokenizer: PreTrainedTokenizerFast) -> None:
    sizes = token_sizes(tokenizer, 300, IM_END)
    assert sizes.shape == (300, 2)
    text = "né 你好 👩‍🔬\n"
    assert sizes[tokenizer(text).input_ids].sum(axis=0).tolist() == [len(text.encode()), len(text)]
    assert sizes[[END, IM_START, IM_END]].sum() == 0
