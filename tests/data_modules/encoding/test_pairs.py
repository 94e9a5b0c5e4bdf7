"""Preference pairs from conversation to cached example: one example with two documents, kept or left out as a whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers.normalizers import Lowercase
from transformers import PreTrainedTokenizerFast

from data_modules.encoding.encoder import Encoder, OverLong, OverLongError
from data_modules.encoding.example import Example
from data_modules.encoding.example_store import ExampleStore, record_batch, write_batches
from data_modules.encoding.ledger import Ledger
from data_modules.errors import UserError
from data_modules.records.conversation import Conversation
from data_modules.records.formats import to_conversation
from data_modules.records.record import Record
from data_modules.rendering.templates import resolve_template
from data_modules.sft_data_module import SFTDataModule
from tests.conftest import byte_tokenizer

MakeData = Callable[..., SFTDataModule]


def pair(prompt: list[str], chosen: str, rejected: str) -> Conversation:
    messages = [{"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(prompt)]
    return to_conversation(
        Record({"prompt": messages, "chosen": chosen, "rejected": rejected}, "f.json:7"), "preference"
    )


def encode(
    tokenizer: PreTrainedTokenizerFast, conversation: Conversation, limit: int = 1000, over_long: OverLong = "truncate"
) -> tuple[list[Example], Ledger]:
    ledger = Ledger()
    encoder = Encoder(tokenizer, resolve_template("chatml", tokenizer), limit, over_long)
    return encoder.encode(conversation, ledger), ledger


def text_of(example: Example, tokenizer: PreTrainedTokenizerFast) -> str:
    return tokenizer.decode(example.input_ids, skip_special_tokens=True)


def documents(example: Example, tokenizer: PreTrainedTokenizerFast) -> tuple[str, str]:
    assert example.rejected is not None
    return text_of(example, tokenizer), text_of(example.rejected, tokenizer)


def alone(tokenizer: PreTrainedTokenizerFast, prompt: list[str], answer: str) -> Example:
    turns = [{"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(prompt)]
    for turn in turns[1::2]:
        turn["weight"] = 0  # type: ignore[assignment]
    record = Record({"messages": [*turns, {"role": "assistant", "content": answer}]}, "f.json:7")
    return encode(tokenizer, to_conversation(record, "messages"))[0][0]


def test_both_documents_are_encoded_as_ever(tokenizer: PreTrainedTokenizerFast) -> None:
    prompt = ["Hi", "Yes?", "Bye"]
    ((example,), _) = encode(tokenizer, pair(prompt, "See you", "Go"))
    assert example.rejected is not None
    for found, answer in ((example, "See you"), (example.rejected, "Go")):
        expected = alone(tokenizer, prompt, answer)
        for name in ("input_ids", "kinds", "turns"):
            assert getattr(found, name).tolist() == getattr(expected, name).tolist()


def test_ledger_counts_a_pair_once(tokenizer: PreTrainedTokenizerFast) -> None:
    ((example,), ledger) = encode(tokenizer, pair(["Hi"], "Hello", "Go away"))
    assert example.rejected is not None
    assert (ledger.examples, ledger.pairs, ledger.num_encoded) == (1, 1, 1)
    assert ledger.lengths == {len(example): 1}
    assert ledger.whole_lengths["conversations"] == {len(example.rejected): 1}  # the longer of the two
    assert sum(ledger.tokens["kept"].values()) == len(example)
    assert ledger.rejected_tokens == len(example.rejected)


@pytest.mark.parametrize("answers", [("Hello", "H" * 40), ("H" * 40, "Hello")])
def test_pair_that_is_too_long_loses_old_exchanges_of_both_or_is_left_out(
    tokenizer: PreTrainedTokenizerFast, answers: tuple[str, str]
) -> None:
    whole = pair(["One", "two", "Three"], *answers)
    short, longest = (
        max(len(alone(tokenizer, prompt, answer)) for answer in answers)
        for prompt in (["Three"], ["One", "two", "Three"])
    )
    for limit in range(1, longest + 1):
        examples, ledger = encode(tokenizer, whole, limit)
        assert (ledger.dropped, ledger.pairs, ledger.over_long["conversations"]) == (
            limit < short,
            limit >= short,
            limit < longest,
        )
        if limit < short:
            assert examples == []
            continue
        chosen, rejected = documents(examples[0], tokenizer)
        assert ("One" in chosen, "One" in rejected) == (limit == longest,) * 2
        assert (answers[0] in chosen, answers[1] in rejected) == (True, True)


def test_pair_that_is_too_long_is_dropped_or_stops_the_run(tokenizer: PreTrainedTokenizerFast) -> None:
    whole = pair(["One", "two", "Three"], "Hello", "H" * 40)
    assert encode(tokenizer, whole, 60, "drop")[0] == []
    with pytest.raises(OverLongError, match=r"f.json:7: \d+ tokens; expected at most 60.*to truncate or drop"):
        encode(tokenizer, whole, 60, "error")


def test_answers_with_the_same_tokens_are_refused() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.normalizer = Lowercase()
    with pytest.raises(UserError, match=r"f.json:7: 'chosen' and 'rejected' have the same tokens"):
        encode(tokenizer, pair(["Hi"], "Hello", "HELLO"))


def test_store_returns_what_was_written(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    one = encode(tokenizer, pair(["Hi"], "Hello", "Go"))[0][0]
    other = alone(tokenizer, ["Hi", "Yes?", "Bye"], "See you")
    write_batches(tmp_path / "x.arrow", [record_batch([one, other], [5, 6])])
    store = ExampleStore(tmp_path / "x.arrow")
    first, second = store
    assert first.rejected is not None
    assert one.rejected is not None
    for found, expected in ((first, one), (first.rejected, one.rejected), (second, other)):
        for name in ("input_ids", "kinds", "turns"):
            assert getattr(found, name).tolist() == getattr(expected, name).tolist()
    assert second.rejected is None
    assert store.lengths.tolist() == [len(one) + len(one.rejected), len(other)]
    assert store.rejected_lengths.tolist() == [len(one.rejected), 0]
    assert np.concatenate([one.input_ids, one.rejected.input_ids]).tolist() == store.ids(0).tolist()
    write_batches(tmp_path / "y.arrow", [record_batch([other], [5])])
    assert ExampleStore(tmp_path / "y.arrow").digest() != store.digest()


@pytest.mark.parametrize("is_good", [True, False])
def test_rated_answer_has_its_prompt_as_the_other_document(tokenizer: PreTrainedTokenizerFast, is_good: bool) -> None:
    record = Record({"prompt": "Hi", "completion": "Hello", "label": is_good}, "f.json:7")
    ((example,), ledger) = encode(tokenizer, to_conversation(record, "prompt_completion"))
    assert example.rejected is not None
    full, bare = (example, example.rejected) if is_good else (example.rejected, example)
    assert full.input_ids.tolist() == alone(tokenizer, ["Hi"], "Hello").input_ids.tolist()
    assert bare.input_ids.tolist() == full.prompt_ids()
    assert bare.answer_ids() == []
    assert (ledger.examples, ledger.pairs, ledger.unpaired) == (1, 1, 1)
    assert bool(ledger.answers_read["output_only"]) is is_good


ROWS = [{"prompt": f"Question {n}?", "chosen": f"Answer {n}.", "rejected": "No."} for n in range(40)]


def test_data_module_counts_pairs(make_data: MakeData) -> None:
    rows = [*ROWS, {**ROWS[0], "rejected": ROWS[0]["chosen"]}]
    data = make_data(rows, on_invalid="drop", val_fraction=0.2)
    counts = [(ledger["records_read"], ledger["examples"], ledger["pairs"]) for ledger in data.ledgers.values()]
    assert sum(read for read, _, _ in counts) == 41
    assert sum(pairs for _, _, pairs in counts) == sum(examples for _, examples, _ in counts) == 40
    assert data.ledgers["train"]["invalid"]["count"] == 1
    assert "are the same answer" in data.ledgers["train"]["invalid"]["first"][0]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"convention": "trl:assistant_only"}, "--data.convention trl:assistant_only: does not apply to preference"),
        ({"over_long": "split"}, "--data.over_long split: preference pairs cannot be split"),
        ({"samples": "answer"}, "--data.samples answer: every preference pair is one sample"),
    ],
)
def test_settings_without_a_meaning_for_pairs_are_refused(
    make_data: MakeData, setting: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        make_data(ROWS, **setting)
