"""Weights of messages between 0 and 1, from the record to the batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from data_modules.batching.batch import collate
from data_modules.encoding.encoder import Encoder, OverLong
from data_modules.encoding.example import Example
from data_modules.encoding.example_store import ExampleStore, record_batch, write_batches
from data_modules.encoding.ledger import Ledger
from data_modules.records.content_keys import content_key
from data_modules.records.conversation import Conversation, Message, Role, expand_answers
from data_modules.rendering.masking import MASKS, Reduction, resolve_mask
from data_modules.rendering.segments import SegmentKind
from data_modules.rendering.templates import resolve_template
from data_modules.sft_data_module import SFTDataModule

MakeData = Callable[..., SFTDataModule]
K = SegmentKind
FIREFLY = MASKS["firefly_multi_turn"]


def talk(*weights: float | None) -> Conversation:
    """Answers of one letter, each with its end token; None leaves the weight out."""
    turns = []
    for index, weight in enumerate(weights):
        answer = "abcdef"[index]
        turns.append(Message(Role.USER, f"q{index}"))
        turns.append(Message(Role.ASSISTANT, answer) if weight is None else Message(Role.ASSISTANT, answer, "", weight))
    return Conversation(tuple(turns), "f.json:7")


def rows(*weights: float | None) -> dict[str, Any]:
    """The same as a record."""
    given = [{"weight": weight} if weight is not None else {} for weight in weights for _ in range(2)]
    messages = [{"role": turn.role.value, "content": turn.content} for turn in talk(*weights).turns]
    more = (extra if message["role"] == "assistant" else {} for message, extra in zip(messages, given, strict=True))
    return {"messages": [message | extra for message, extra in zip(messages, more, strict=True)]}


def encode(
    tokenizer: PreTrainedTokenizerFast, conversation: Conversation, limit: int = 1000, over_long: OverLong = "error"
) -> list[Example]:
    return Encoder(tokenizer, resolve_template("chatml", tokenizer), limit, over_long).encode(conversation)


def supervised(example: Example, reduction: Reduction = "token", mask: str = "firefly_multi_turn") -> list[float]:
    weights = example.loss_weights(MASKS[mask], reduction)
    return weights[weights > 0].tolist()  # type: ignore[no-any-return]


def test_weight_one_everywhere_is_the_same_as_no_weights_bit_for_bit(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    files = []
    for name, weights in (("none", (None, None)), ("ones", (1.0, 1.0))):
        examples = encode(tokenizer, talk(*weights))
        assert len(examples[0].message_weights) == 0
        write_batches(tmp_path / name, [record_batch(examples)])
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        ("token", [0.5, 0.5, 1, 1]),
        ("sample", [0.125, 0.125, 0.25, 0.25]),
        ("turn", [0.25, 0.25, 0.5, 0.5]),
    ],
)
def test_weight_multiplies_what_the_mask_and_the_reduction_give(
    tokenizer: PreTrainedTokenizerFast, reduction: Reduction, expected: list[float]
) -> None:
    (example,) = encode(tokenizer, talk(0.5, 1))
    assert supervised(example, reduction) == expected
    (alone,) = encode(tokenizer, talk(0.5))
    assert supervised(alone, reduction) == [
        0.5 * weight for weight in supervised(encode(tokenizer, talk(1))[0], reduction)
    ]


def test_weight_is_that_of_what_the_assistant_says_only(tokenizer: PreTrainedTokenizerFast) -> None:
    (example,), (plain,) = encode(tokenizer, talk(0.5, 1)), encode(tokenizer, talk(1, 1))
    for mask in (MASKS["whole_sequence"], resolve_mask("output_only", 0.25)):
        weights, without = example.loss_weights(mask), plain.loss_weights(mask)
        factor = np.where(example.kinds == K.ANSWER, 0.5, 1).astype(np.float32)
        assert weights.tolist() == (without * factor).tolist()
    assert example.kinds.tolist() == plain.kinds.tolist()
    assert example.input_ids.tolist() == plain.input_ids.tolist()


def test_thinking_and_calls_have_the_weight_of_their_message(tokenizer: PreTrainedTokenizerFast) -> None:
    turns = (Message(Role.USER, "q"), Message(Role.ASSISTANT, "a", weight=0.25, thinking="t"))
    (example,) = encode(tokenizer, Conversation(turns, "f.json:7"))
    assert set(supervised(example, mask="output_only")) == {0.25}
    assert len(supervised(example, mask="output_only")) == len(b"<think>\nt\n</think>\n\na") + 1


def test_weight_0_is_a_kind_and_not_a_factor(tokenizer: PreTrainedTokenizerFast) -> None:
    (example,) = encode(tokenizer, talk(0, 0.5))
    assert supervised(example) == [0.5, 0.5]
    assert supervised(example, "sample") == [0.25, 0.25]  # shared among the tokens that are supervised
    assert (example.kinds == K.CONTEXT_ANSWER).sum() == 2


@pytest.mark.parametrize("pack", [True, False])
def test_weights_of_a_batch(tokenizer: PreTrainedTokenizerFast, pack: bool) -> None:
    examples = [encode(tokenizer, talk(*weights))[0] for weights in ((0.5, 1), (1,), (0.25,))]
    batch = collate(examples, mask=FIREFLY, pack=pack)
    assert batch.weights.flatten()[batch.targets].tolist() == [0.5, 0.5, 1, 1, 1, 1, 0.25, 0.25]
    assert batch.normaliser == 5.5


def test_store_keeps_weights_and_spends_nothing_on_examples_without(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    examples = [encode(tokenizer, talk(*weights))[0] for weights in ((1, 1), (0.5, 1, 0.125), (1,))]
    write_batches(tmp_path / "train.arrow", [record_batch(examples)])
    store = ExampleStore(tmp_path / "train.arrow")
    for read, written in zip(store, examples, strict=True):
        assert read.kinds.tolist() == written.kinds.tolist()
        assert read.message_weights.tolist() == written.message_weights.tolist()
        assert supervised(read) == supervised(written)
    assert store[1].message_weights.tolist() == [1, 0.5, 1, 1, 1, 0.125]
    kinds = store._batches[0].column(1).values
    assert len(kinds) == sum(map(len, examples)) + 4 * 6


@pytest.mark.parametrize("over_long", ["split", "truncate"])
def test_parts_of_a_conversation_keep_the_weights_of_their_messages(
    tokenizer: PreTrainedTokenizerFast, over_long: OverLong
) -> None:
    of = {"a": 0.5, "b": 1.0, "c": 0.25, "d": 0.125}
    (whole,) = encode(tokenizer, talk(*of.values()))
    for limit in range(5, len(whole)):
        for example in encode(tokenizer, talk(*of.values()), limit, over_long):
            weights = example.loss_weights(MASKS["whole_sequence"])
            for token, kind, weight in zip(example.input_ids, example.kinds, weights, strict=True):
                if kind in (K.ANSWER, K.FINAL_ANSWER) and token < 256:
                    assert weight == of[chr(token)]


def test_samples_of_answers_keep_their_weights(make_data: MakeData) -> None:
    data = make_data([rows(0.5, 0, 0.25)], samples="answer", mask="output_only")
    assert [supervised(example, mask="output_only") for example in data.stores["train"]] == [[0.5, 0.5], [0.25, 0.25]]
    assert [sample.turns[-1].weight for sample in expand_answers(talk(0.5, 0, 1))] == [0.5, 1]


def test_weights_change_neither_the_split_nor_the_ledger(tokenizer: PreTrainedTokenizerFast) -> None:
    assert content_key(talk(0.5, 1)) == content_key(talk(1, 1))
    ledgers = [Ledger(), Ledger()]
    for ledger, weights in zip(ledgers, ((0.5, 1), (1, 1)), strict=True):
        Encoder(tokenizer, resolve_template("chatml", tokenizer), 40, "split").encode(talk(*weights), ledger)
    assert ledgers[0].to_dict() == ledgers[1].to_dict()
