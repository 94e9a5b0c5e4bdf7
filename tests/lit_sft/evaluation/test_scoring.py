"""Perplexity and every rule of multiple choice against loops that are too simple to be wrong, and against lm-eval."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from lit_sft.evaluation.choices import (
    RULES,
    Item,
    Options,
    content_hash,
    read_choices,
    score_choices,
)
from lit_sft.evaluation.evaluate import score_set
from lit_sft.evaluation.judge import LikelihoodJudge
from lit_sft.evaluation.scores import Skipped
from lit_sft.evaluation.suite import ChoiceSet, ConversationSet, TextSet
from lit_sft.evaluation.text_perplexity import score_conversations, score_texts, windows
from lit_sft.models.loaded import LoadedModel
from tests.conftest import END, MODELS, alpaca_rows, chat_rows
from tests.lit_sft.evaluation.conftest import MakeModel

Write = Callable[..., str]

TEXTS = ["The brown pony sleeps beside the mill. " * 4, "桥下住着一只老乌龟。它叫石头。", "Short."]


@torch.no_grad()
def nats_of(model: LoadedModel, ids: list[int]) -> list[float]:
    """Nats of each token but the first, with one forward pass per token."""
    costs = []
    for end in range(1, len(ids)):
        logits = model.backbone(input_ids=torch.tensor([ids[:end]])).logits[0, -1].double()
        costs.append(-float(torch.log_softmax(logits, dim=-1)[ids[end]]))
    return costs


@pytest.mark.parametrize("shape", MODELS)
def test_windows_score_every_token_once_with_the_context_they_give(
    shape: str, make_model: MakeModel, write: Write
) -> None:
    model, window, stride = make_model(shape), 24, 10
    path = write("texts.jsonl", [{"text": text} for text in TEXTS])
    rows = list(score_texts(model, TextSet(path, window, stride), Skipped()))
    assert len(rows) == len(TEXTS)
    for row, text in zip(rows, TEXTS, strict=True):
        ids = [END, *text.encode()]
        total, done, begin = 0.0, 1, 0
        while done < len(ids):
            end = min(begin + window, len(ids))
            total += sum(nats_of(model, ids[begin:end])[done - begin - 1 :])
            done, begin = end, begin + stride
        sizes = {"nll": len(ids) - 1, "bits_per_byte": len(ids) - 1, "bits_per_character": len(text)}
        for metric, size in sizes.items():
            value = total if metric == "nll" else total / math.log(2)
            assert row.metrics[metric] == pytest.approx((value, size), rel=1e-6)
        assert row.details == {"window": window, "stride": stride}


@pytest.mark.parametrize(("length", "window", "stride"), [(2, 4, 2), (4, 4, 2), (5, 4, 3), (30, 7, 3), (30, 7, 6)])
def test_windows_score_every_token_once_and_none_without_context(length: int, window: int, stride: int) -> None:
    places = list(windows(length, window, stride))
    assert [token for _, end, first in places for token in range(first, end)] == list(range(1, length))
    assert all(end - begin <= window and begin < first for begin, end, first in places)


@pytest.mark.parametrize("shape", MODELS)
def test_conversations_are_scored_by_segment(shape: str, make_model: MakeModel, write: Write) -> None:
    model = make_model(shape)
    path = write("chats.jsonl", chat_rows(5))
    rows = {row.item: row for row in score_conversations(model, ConversationSet(path), Skipped())}
    for number, fields in enumerate(chat_rows(5), start=1):
        turns = fields["conversation"]
        text, answers = "", []
        for position, turn in enumerate(turns):
            text += ("\n\n" if position else "") + f"User:\n{turn['human']}\n\nAssistant:\n"
            answers += list(range(len(text) + position, len(text) + position + len(turn["assistant"]) + 1))
            text += turn["assistant"]
        parts = text.split("\n\nUser:")
        ids = [i for k, part in enumerate(parts) for i in (*(b"\n\nUser:" if k else b""), *part.encode(), 256)]
        costs = [0.0, *nats_of(model, ids)]
        row = rows[f"{path}:{number}"]
        assert row.metrics["nll/whole_sequence"] == pytest.approx((sum(costs), len(ids) - 1), rel=1e-6)
        assert row.metrics["nll/answer"] == pytest.approx((sum(costs[i] for i in answers), len(answers)), rel=1e-6)
        size = sum(len(turn["assistant"]) for turn in turns)
        assert row.metrics["bits_per_byte/answer"][1] == row.metrics["bits_per_character/answer"][1] == size


@pytest.mark.parametrize("shape", MODELS)
@pytest.mark.parametrize(
    ("prompt", "options"),
    [
        ("Question: 2 + 2?\nAnswer:", [" 4", " five", " a dozen"]),
        ("问题：谁？\n答案：", ["我", "老乌龟"]),
        ("So ", ["a", "bc"]),
    ],
)
def test_rules_rank_as_defined(shape: str, prompt: str, options: list[str], make_model: MakeModel) -> None:
    model = make_model(shape)
    asked = Options.of(model, prompt, options)
    for score, option in zip(asked.scores(iter(model.nats(asked.sequences))), options, strict=True):
        begin, whole = len(prompt.rstrip().encode()), list((prompt + option).encode())
        costs = nats_of(model, whole)
        nats, text = sum(costs[begin - 1 :]), option.strip()
        expected = {
            "sum": -nats, "per_character": -nats / len(text), "per_byte": -nats / len(text.encode()),
            "per_token": -nats / (len(whole) - begin), "opencompass_ppl": -sum(costs) / len(whole),
            "opencompass_ll": -nats,
        }  # fmt: skip
        assert {rule: RULES[rule](score) for rule in RULES} == pytest.approx(expected, rel=1e-6)


def test_scores_do_not_depend_on_the_batch(make_model: MakeModel) -> None:
    sequences = [list(text.encode()) for text in TEXTS]
    together, alone = make_model(token_budget=10**4).nats(sequences), make_model(token_budget=1).nats(sequences)
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_lm_eval_agrees_item_by_item(make_model: MakeModel, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    from lit_sft.evaluation.harness import score_task
    from lit_sft.evaluation.suite import HarnessSet

    items = [item for item in read_choices("general")[0] if item.language == "en"][::8]
    rows = [{"q": i.question, "options": list(i.options), "gold": i.answer} for i in items]
    (tmp_path / "items.json").write_text(json.dumps(rows))
    task = {
        "task": "ours", "test_split": "test", "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "items.json")}},
        "output_type": "multiple_choice", "doc_to_text": "Question: {{q}}\nAnswer:",
        "doc_to_choice": "options", "doc_to_target": "gold",
        "metric_list": [{"metric": name} for name in ("acc", "acc_norm", "acc_bytes")],
    }  # fmt: skip
    (tmp_path / "ours.yaml").write_text(yaml.safe_dump(task))
    model = make_model("qwen2")
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    theirs = list(score_task(model, HarnessSet("ours", include=str(tmp_path)), Skipped()))
    assert all(torch.equal(value, before[name]) for name, value in model.backbone.state_dict().items())
    path = tmp_path / "ours.jsonl"
    path.write_text("".join(json.dumps(_row(item)) + "\n" for item in items))
    ours = list(score_choices(model, ChoiceSet(str(path), forms=("cloze",)), Skipped()))
    assert len(ours) == len(theirs) == 10
    assert theirs[0].details["question"] == items[0].prompt("cloze")[0]
    same = {"acc": "sum", "acc_norm": "per_character", "acc_bytes": "per_byte"}
    for one, other in zip(ours, theirs, strict=True):
        for metric, rule in same.items():
            assert one.metrics[f"accuracy/cloze/{rule}"] == other.metrics[metric]
    assert len({tuple(row.metrics.values()) for row in ours}) > 1


def _row(item: Item) -> dict[str, Any]:
    return {"id": item.id, "question": item.question, "options": item.options, "answer": item.options[item.answer]}


def test_the_embedded_suite_is_balanced_and_bilingual() -> None:
    items, wrong = read_choices("general")
    assert not wrong
    assert len(items) >= 150
    assert len({item.id for item in items}) == len(items)
    for language in ("en", "zh"):
        for topic in {item.topic for item in items if item.language == language}:
            places = [item.answer for item in items if item.topic == topic]
            assert {places.count(place) for place in range(4)} == {4}
    assert content_hash(items) != content_hash(items[1:])


def test_invalid_items_do_not_affect_the_others(make_model: MakeModel, write: Write) -> None:
    good = {"id": "a", "question": "Who?", "options": ["me", "you"], "answer": "me"}
    rows = [
        good,
        good,
        {**good, "answer": "them"},
        {"id": "b"},
        {**good, "options": ["me", "me"]},
        {**good, "id": "long", "question": "?" * 900},
    ]
    skipped = Skipped()
    found = list(score_choices(make_model(), ChoiceSet(write("c.jsonl", rows)), skipped))
    assert [row.item for row in found] == ["a"]
    assert len(skipped.reasons) == 5
    assert "c.jsonl:2: not a valid item (duplicate id 'a')" in skipped.reasons[0]
    assert "c.jsonl:3: not a valid item (answer 'them': not among the options)" in skipped.reasons[1]
    assert "the context length of the model is 512" in skipped.reasons[4]


def test_options_and_answers_may_be_numbers(write: Write) -> None:
    rows = [{"id": "a", "question": "1 + 1?", "options": [1, 2], "answer": 2}]
    rows += [{"id": "b", "question": "1 + 1?", "options": [1, 2.5], "answer": "2.5"}]
    items, wrong = read_choices(write("c.jsonl", rows))
    assert not wrong
    assert [(item.options, item.answer) for item in items] == [(("1", "2"), 1), (("1", "2.5"), 1)]


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe", b'{"id": "x", "question": "Who?\xff", "options": ["a", "b"], "answer": "a"}', b"[" * 100_000,
        b"[]", b'"id"', b"null", b"9" * 5000, b'{"id": "x", "question": "Who?", "options": "ab", "answer": "a"}',
        b'{"id": "x", "question": "Who\\ud800?", "options": ["a", "b"], "answer": "a"}',
        b'{"id": "x", "question": ["Who?"], "options": ["a", "b"], "answer": "a"}',
        b'{"id": "x", "question": "Who?", "options": [{}, "b"], "answer": "b"}',
        b'{"id": "x", "question": "Who?", "options": ["a", "b"], "answer": "a", "language": ["en"]}',
        b'{"id": null, "question": "Who?", "options": ["a", "b"], "answer": "a"}',
    ],
    ids=range(13),
)  # fmt: skip
def test_a_bad_line_of_items_does_not_affect_the_others(write: Write, line: bytes) -> None:
    good = b'{"id": "a", "question": "Who?", "options": ["me", "you"], "answer": "me"}'
    path = write("c.jsonl", b"\xef\xbb\xbf" + b"\n".join([good, line, good.replace(b'"a"', b'"b"')]))
    items, wrong = read_choices(path)
    assert [item.id for item in items] == ["a", "b"]
    (reason,) = wrong
    assert reason.startswith(f"{path}:2: not a valid item (")
    assert len(reason) < len(path) + 300


@pytest.mark.parametrize("kind", ["choices", "conversations"])
def test_all_skipped_items_are_counted(make_model: MakeModel, write: Write, kind: str) -> None:
    good = {"id": "a", "question": "Who?", "options": ["me", "you"], "answer": "me"}
    rows = [good, *[{"id": f"bad {n}"} for n in range(250)]] if kind == "choices" else alpaca_rows(1)
    rows += [{"instruction": n, "output": "x"} for n in range(250)] if kind == "conversations" else []
    path = write("rows.jsonl", rows)
    settings = ChoiceSet(path) if kind == "choices" else ConversationSet(path)
    result = score_set(make_model(), kind, "s", settings)
    assert (len(result.rows), result.num_skipped, len(result.skipped)) == (1, 250, 100)


def test_text_starts_after_a_bos_token_with_id_0(make_model: MakeModel, write: Write) -> None:
    model = make_model()
    model.tokenizer = copy.deepcopy(model.tokenizer)
    model.tokenizer.bos_token = model.tokenizer.convert_ids_to_tokens(0)
    assert model.tokenizer.bos_token_id == 0
    text = "The mill stands by the river."
    (row,) = score_texts(model, TextSet(write("t.jsonl", [{"text": text}]), 64), Skipped())
    (nats,) = model.nats([[0, *text.encode()]])
    assert row.metrics["nll"] == (pytest.approx(float(nats.sum())), len(text))


def test_likelihoods_that_are_not_finite_choose_nothing(make_model: MakeModel, write: Write) -> None:
    model, skipped = make_model(), Skipped()
    next(model.backbone.parameters()).data.fill_(math.nan)
    path = write("c.jsonl", [{"id": "a", "question": "Who?", "options": ["me", "you"], "answer": "me"}])
    assert not list(score_choices(model, ChoiceSet(path), skipped))
    assert skipped.reasons == ["a: the likelihoods are not finite."]
    assert LikelihoodJudge(model)("Who?", "me", "you").winner is None


def test_invalid_records_are_listed_and_left_out(make_model: MakeModel, write: Write) -> None:
    path = write("rows.jsonl", [*alpaca_rows(3), {"instruction": 1, "output": "x"}])
    skipped = Skipped()
    assert len(list(score_conversations(make_model(), ConversationSet(path), skipped))) == 3
    assert len(skipped.reasons) == 1
    assert "rows.jsonl:4" in skipped.reasons[0]
