"""Answers that their record excludes from training: context under every mask, from the rendering to the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from data_modules.batching.batch import collate
from data_modules.encoding.encoder import Encoder, OverLong
from data_modules.encoding.example import Example
from data_modules.encoding.ledger import Ledger
from data_modules.records.content_keys import content_key
from data_modules.records.conversation import Conversation, Message, Role, expand_answers
from data_modules.rendering.masking import MASKS, resolve_mask
from data_modules.rendering.segments import SegmentKind
from data_modules.rendering.templates import resolve_template
from data_modules.sft_data_module import SFTDataModule
from tests.conftest import IM_END
from tests.data_modules.rendering.test_templates import JINJA_CHATML

MakeData = Callable[..., SFTDataModule]

K = SegmentKind
TEMPLATES = ("alpaca", "chatml", "plain", "tokenizer")


def talk(*answers: str, system: str = "") -> Conversation:
    """A conversation with these answers; those in brackets are not trained. `?` has none."""
    turns = [Message(Role.SYSTEM, system)] if system else []
    for index, answer in enumerate(answers):
        turns.append(Message(Role.USER, f"q{index}"))
        if answer != "?":
            turns.append(Message(Role.ASSISTANT, answer.strip("()"), weight=float(not answer.startswith("("))))
    return Conversation(tuple(turns), "f.json:7")


def rows(*answers: str) -> dict[str, Any]:
    """The same as a record of the format `messages`."""
    weights = [{} if turn.is_trained else {"weight": 0} for turn in talk(*answers).turns]
    pairs = zip(talk(*answers).turns, weights, strict=True)
    return {"messages": [{"role": turn.role.value, "content": turn.content, **weight} for turn, weight in pairs]}


def encoder(
    tokenizer: PreTrainedTokenizerFast, template: str = "chatml", limit: int = 10_000, over_long: OverLong = "error"
) -> Encoder:
    if template == "tokenizer":
        tokenizer = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer, eos_token="<|endoftext|>")
        tokenizer.chat_template = JINJA_CHATML
    return Encoder(tokenizer, resolve_template(template, tokenizer), limit, over_long)  # type: ignore[arg-type]


def text(example: Example, chosen: Any, tokenizer: PreTrainedTokenizerFast) -> str:
    return str(tokenizer.decode(example.input_ids[chosen], skip_special_tokens=False))


def supervised(example: Example, mask: str, tokenizer: PreTrainedTokenizerFast) -> str:
    return text(example, MASKS[mask].token_weights(example.kinds, example.turns) > 0, tokenizer)


@pytest.mark.parametrize("template", TEMPLATES)
def test_untrained_answer_has_the_same_ids_and_a_kind_of_its_own(
    tokenizer: PreTrainedTokenizerFast, template: str
) -> None:
    encode = encoder(tokenizer, template).encode
    (some,), (all_trained,) = encode(talk("(bad)", "good")), encode(talk("bad", "good"))
    assert some.input_ids.tolist() == all_trained.input_ids.tolist()
    assert some.turns.tolist() == all_trained.turns.tolist()
    changed = np.flatnonzero(some.kinds != all_trained.kinds)
    assert set(some.kinds[changed]) == {K.CONTEXT_ANSWER}
    assert set(all_trained.kinds[changed]) == {K.ANSWER}
    end = encoder(tokenizer, template).template.end
    assert text(some, changed, tokenizer) == f"bad{end}"


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize(
    ("answers", "output_only", "every"),
    [
        (("(a)", "b"), "b|", "b|"),
        (("a", "(b)", "c"), "c|", "a|c|"),
        (("a", "(b)"), "", "a|"),
        (("(a)", "(b)"), "", ""),
    ],
)
def test_no_answer_mask_supervises_an_untrained_answer(
    tokenizer: PreTrainedTokenizerFast, template: str, answers: tuple[str, ...], output_only: str, every: str
) -> None:
    (example,) = encoder(tokenizer, template).encode(talk(*answers))
    end = str(encoder(tokenizer, template).template.end)
    assert supervised(example, "output_only", tokenizer) == output_only.replace("|", end)
    assert supervised(example, "firefly_multi_turn", tokenizer) == every.replace("|", end)


@pytest.mark.parametrize(
    "mask", [*MASKS.values(), resolve_mask("output_only", 0.5), resolve_mask("whole_sequence", 0.1)]
)
def test_no_mask_gives_an_untrained_answer_a_weight(tokenizer: PreTrainedTokenizerFast, mask: Any) -> None:
    (example,) = encoder(tokenizer).encode(talk("(bad)", "good"))
    batch = collate([example], mask=mask)
    assert batch.weights[batch.kinds == K.CONTEXT_ANSWER].tolist() == [0.0] * len("badE")
    assert (batch.weights[0, 1:][batch.kinds[0, 1:] != K.CONTEXT_ANSWER] > 0).all() == (mask.weights[K.USER] > 0)


def test_whole_sequence_supervises_everything_but_untrained_answers(tokenizer: PreTrainedTokenizerFast) -> None:
    (example,) = encoder(tokenizer).encode(talk("(bad)", "good"))
    shown = supervised(example, "whole_sequence", tokenizer)
    assert shown == (
        "user\nq0<|im_end|>\n<|im_start|>assistant\n\n<|im_start|>user\nq1<|im_end|>\n<|im_start|>assistant\n"
        "good<|im_end|>\n"
    )


def test_targets_of_a_training_batch_leave_untrained_answers_out(tokenizer: PreTrainedTokenizerFast) -> None:
    (example,) = encoder(tokenizer).encode(talk("(bad)", "good"))
    batch = collate([example], mask=MASKS["firefly_multi_turn"])
    assert batch.input_ids.flatten()[batch.targets].tolist() == [*b"good", IM_END]
    assert batch.normaliser == 5


def test_one_sample_is_made_of_each_trained_answer_with_the_others_as_context() -> None:
    samples = expand_answers(talk("(a)", "b", "(c)", "d", "(e)"))
    assert [sample.turns for sample in samples] == [talk("(a)", "b").turns, talk("(a)", "b", "(c)", "d").turns]
    assert expand_answers(talk("(a)", "(b)")) == [talk("(a)", "(b)")]
    assert expand_answers(talk("a", "?")) == [talk("a", "?")]


def test_split_does_not_depend_on_which_answers_are_trained() -> None:
    assert content_key(talk("a", "b")) == content_key(talk("(a)", "b"))


@pytest.mark.parametrize(
    ("answers", "prompt", "answer"),
    [
        (("(a)", "b"), "q0Ea\nq1", "bE"),
        (("a", "(b)"), "q0Ea\nq1", ""),
        (("a", "(b)", "?"), "q0Ea\nq1Eb\nq2", ""),
        (("(a)",), "q0", ""),
    ],
)
def test_prompt_ends_before_the_last_answer_even_if_it_is_not_trained(
    tokenizer: PreTrainedTokenizerFast, answers: tuple[str, ...], prompt: str, answer: str
) -> None:
    (example,) = encoder(tokenizer).encode(talk(*answers))
    (bare,) = encoder(tokenizer).encode(talk(*answers).prompt())
    assert example.prompt_ids() == bare.input_ids.tolist()
    assert bytes(i if i < 256 else ord("E") for i in example.answer_ids()).decode() == answer
    assert prompt[-2:] in str(tokenizer.decode(example.prompt_ids()))


@pytest.mark.parametrize("over_long", ["truncate", "split", "drop"])
@pytest.mark.parametrize("answers", [("(aaaa)", "bbbb", "(cc)"), ("aaaa", "(bbbb)", "cccc"), ("(aaaa)",)])
def test_every_length_limit_is_respected_and_every_loss_counted(
    tokenizer: PreTrainedTokenizerFast, answers: tuple[str, ...], over_long: OverLong
) -> None:
    conversation = talk(*answers, system="sss")
    (whole,) = encoder(tokenizer).encode(conversation)
    for limit in range(1, len(whole) + 1):
        ledger = Ledger()
        examples = encoder(tokenizer, "chatml", limit, over_long).encode(conversation, ledger)
        assert all(len(example) <= limit for example in examples)
        for kind in SegmentKind:
            counts = {reason: tokens[kind] for reason, tokens in ledger.tokens.items()}
            assert counts["read"] + counts["repeated"] == counts["kept"] + counts["dropped"] + counts["truncated"]
        untrained = ledger.tokens["read"][K.CONTEXT_ANSWER] - ledger.tokens["kept"][K.CONTEXT_ANSWER]
        lost = ledger.to_dict()["supervised_tokens_lost"]["firefly_multi_turn"]
        kept = sum(np.isin(example.kinds, (K.ANSWER, K.FINAL_ANSWER)).sum() for example in examples)
        assert lost == np.isin(whole.kinds, (K.ANSWER, K.FINAL_ANSWER)).sum() - kept
        assert untrained == ledger.to_dict()["tokens"]["read"]["context_answer"] - sum(
            (example.kinds == K.CONTEXT_ANSWER).sum() for example in examples
        )


def test_untrained_last_answer_is_cut_where_a_trained_one_would_be(tokenizer: PreTrainedTokenizerFast) -> None:
    for limit in range(25, 60):
        (trained,), (untrained,) = (
            encoder(tokenizer, "chatml", limit, "truncate").encode(talk("a", last))
            for last in ("b" * 40, f"({'b' * 40})")
        )
        assert trained.input_ids.tolist() == untrained.input_ids.tolist()


def test_ledger_counts_trained_answers_only(tokenizer: PreTrainedTokenizerFast) -> None:
    ledger = Ledger()
    encoder(tokenizer).encode(talk("(a)", "b", "(c)", "d"), ledger)
    encoder(tokenizer).encode(talk("(a)", "b", "(c)"), ledger)
    entry = ledger.to_dict()
    assert entry["answers"]["firefly_multi_turn"] == {"read": 3, "cut": 0, "lost": 0}
    assert entry["answers"]["output_only"] == {"read": 1, "cut": 0, "lost": 0}
    assert entry["dialogues"] == {"read": 1, "kept": 1}
    assert entry["untrained_ends"] == 1
    assert entry["tokens"]["kept"]["context_answer"] == 2 * 4


def test_ledger_of_data_without_untrained_answers_is_as_before(tokenizer: PreTrainedTokenizerFast) -> None:
    ledger = Ledger()
    encoder(tokenizer).encode(talk("a", "b"), ledger)
    entry = ledger.to_dict()
    assert set(entry["tokens"]["read"]) == {"system", "user", "template", "answer", "final_answer", "text"}
    assert not {"unknown_fields", "changed_turns", "untrained_ends"} & entry.keys()


def test_samples_of_a_file_train_each_answer_once_and_no_untrained_one(
    make_data: MakeData, tokenizer: PreTrainedTokenizerFast
) -> None:
    data = make_data([rows("(a)", "b", "(c)", "d"), rows("e", "(f)")], samples="answer", mask="output_only")
    assert [supervised(example, "output_only", tokenizer) for example in data.stores["train"]] == [
        "b<|im_end|>", "d<|im_end|>", "e<|im_end|>"
    ]  # fmt: skip
    assert data.ledgers["train"]["samples_added"] == 1


def test_mask_that_trains_no_last_answer_is_refused(make_data: MakeData) -> None:
    with pytest.raises(
        ValueError, match=r"mask 'output_only' supervises no token of the 2 train examples .*CONTEXT_ANSWER"
    ):
        make_data([rows("a", "(b)"), rows("c", "(d)")], mask="output_only")
    assert len(make_data([rows("a", "(b)"), rows("c", "(d)")], mask="firefly_multi_turn").stores["train"]) == 2


def test_record_without_a_trained_answer_is_dropped_and_counted(make_data: MakeData) -> None:
    data = make_data([rows("a", "b"), rows("(c)", "(d)")], on_invalid="drop")
    assert len(data.stores["train"]) == 1
    assert data.ledgers["train"]["invalid"]["count"] == 1
    assert "every answer has the weight 0" in data.ledgers["train"]["invalid"]["first"][0]
