from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from data_modules.batching.batch import Batch, collate
from data_modules.encoding.example import Example
from data_modules.rendering.masking import MASKS
from data_modules.rendering.segments import SegmentKind
from lit_sft.metrics.segments import SegmentMetrics, WeightedMean, curves, perplexity

K = SegmentKind
END = 9
# one row: a header, a question, an answer with its end, a separator, a question, the final answer with its end
KINDS = [K.TEMPLATE, K.USER, K.ANSWER, K.ANSWER, K.TEMPLATE, K.USER, K.FINAL_ANSWER, K.FINAL_ANSWER, K.FINAL_ANSWER]
IDS = [1, 2, 3, END, 4, 5, 6, 7, END]
TURNS = [0, 0, 1, 1, 1, 2, 3, 3, 3]
NATS = [0.0, 1, 2, 3, 4, 5, 6, 7, 8]  # nats of each token; the first is not predicted
SIZES = torch.tensor([[0, 0], [1, 1], [1, 0], [2, 1], [1, 1], [1, 1], [3, 1], [4, 2], [1, 1], [0, 0]])


def metric_of(nats: list[float] = NATS) -> SegmentMetrics:
    metric = SegmentMetrics(SIZES, END)
    metric.update(torch.tensor(nats[1:]), row())
    return metric


def row() -> Batch:
    return Batch(
        input_ids=torch.tensor([IDS]),
        kinds=torch.tensor([KINDS], dtype=torch.uint8),
        turns=torch.tensor([TURNS], dtype=torch.int16),
        weights=torch.zeros(1, 9),
        targets=torch.arange(1, 9),
        normaliser=1.0,
        origins=("f:1",),
        positions=torch.arange(9).unsqueeze(0),
        lengths=(9,),
    )


def test_metrics_by_segment_and_mask_equal_values_computed_by_hand() -> None:
    metrics = metric_of().compute()
    means = {key: value for key, value in metrics.items() if key.startswith("nll/")}
    assert means == pytest.approx(
        {
            "nll/user": (1 + 5) / 2,
            "nll/template": 4,
            "nll/answer": (2 + 3 + 6 + 7 + 8) / 5,
            "nll/first_answer_token": (2 + 6) / 2,
            "nll/end_token": (3 + 8) / 2,
            "nll/whole_sequence": 36 / 8,
            "nll/output_only": (6 + 7 + 8) / 3,
            "nll/firefly_multi_turn": (2 + 3 + 6 + 7 + 8) / 5,
        }
    )
    assert metrics["perplexity/output_only"] == pytest.approx(math.exp(7))
    assert metrics["bits_per_byte/answer"] == pytest.approx(26 / math.log(2) / (2 + 3 + 4))
    assert metrics["tokens/whole_sequence"] == 8
    assert "nll/system" not in metrics


def test_answers_that_are_not_trained_have_metrics_of_their_own_and_are_in_no_mask() -> None:
    batch = row()
    batch.kinds[batch.kinds == K.ANSWER] = K.CONTEXT_ANSWER
    metric = SegmentMetrics(SIZES, END)
    metric.update(torch.tensor(NATS[1:]), batch)
    metrics = metric.compute()
    means = {key: value for key, value in metrics.items() if key.startswith("nll/")}
    assert means == pytest.approx(
        {
            "nll/user": (1 + 5) / 2,
            "nll/template": 4,
            "nll/context_answer": (2 + 3) / 2,
            "nll/answer": (6 + 7 + 8) / 3,
            "nll/first_answer_token": 6,
            "nll/end_token": 8,
            "nll/whole_sequence": (36 - 2 - 3) / 6,
            "nll/output_only": (6 + 7 + 8) / 3,
            "nll/firefly_multi_turn": (6 + 7 + 8) / 3,
        }
    )
    assert metrics["tokens/context_answer"] == 2
    assert "nll/context_answer" not in metric_of().compute()


def test_thinking_tool_calls_and_results_have_losses_of_their_own() -> None:
    batch = row()
    kinds = [K.TEMPLATE, K.USER, K.TOOL_CALL, K.TOOL_CALL, K.TOOL_RESULT, K.THINKING, K.FINAL_THINKING]
    batch.kinds[:] = torch.tensor([[*kinds, K.FINAL_ANSWER, K.FINAL_ANSWER]])
    metric = SegmentMetrics(SIZES, END)
    metric.update(torch.tensor(NATS[1:]), batch)
    metrics = metric.compute()
    means = {key: value for key, value in metrics.items() if key.startswith("nll/")}
    assert means == pytest.approx(
        {
            "nll/user": 1,
            "nll/tool_call": (2 + 3) / 2,
            "nll/tool_result": 4,
            "nll/thinking": (5 + 6) / 2,
            "nll/answer": (7 + 8) / 2,
            "nll/first_answer_token": 7,
            "nll/end_token": (3 + 8) / 2,
            "nll/whole_sequence": 36 / 8,
            "nll/output_only": (6 + 7 + 8) / 3,
            "nll/firefly_multi_turn": (2 + 3 + 5 + 6 + 7 + 8) / 6,
        }
    )
    assert not {f"nll/{name}" for name in ("thinking", "tool_call", "tool_result")} & metric_of().compute().keys()


def test_state_keeps_its_precision_under_every_cast() -> None:
    metric = metric_of()
    for cast in (metric.bfloat16, metric.half, metric.float, lambda: metric.to(torch.bfloat16)):
        cast()
        assert (metric.nats.dtype, metric.tokens.dtype, metric.bytes.dtype) == (torch.float64, torch.int64, torch.int64)
    module = torch.nn.ModuleDict({"m": metric_of(), "w": WeightedMean()}).to(torch.bfloat16)
    assert module["w"].total.dtype is torch.float64  # type: ignore[union-attr]
    for _ in range(600):
        module["m"].update(torch.full((8,), math.log(10)).bfloat16().float(), row())  # type: ignore[operator]
    assert module["m"].compute()["tokens/whole_sequence"] == 601 * 8  # type: ignore[operator]


def test_one_impossible_token_does_not_turn_other_segments_into_nan() -> None:
    metrics = metric_of([0.0, math.inf, *NATS[2:]]).compute()
    assert metrics["nll/user"] == math.inf
    assert metrics["perplexity/user"] == math.inf
    assert metrics["nll/answer"] == pytest.approx(26 / 5)
    assert metrics["nll/first_answer_token"] == 4


@pytest.mark.parametrize("pack", [False, True])
def test_sums_of_a_record_do_not_depend_on_its_batch(pack: bool) -> None:
    ids, kinds, turns = np.array(IDS, np.int32), np.array(KINDS, np.uint8), np.array(TURNS, np.int16)
    parts = [Example(ids[:n], kinds[:n], turns[:n], origin) for n, origin in ((9, "f:1"), (9, "f:2"), (5, "f:1"))]
    batch = collate(parts, mask=MASKS["output_only"], pack=pack, score_all=True)
    metric = SegmentMetrics(SIZES, END, by_record=True)
    metric.update(torch.tensor([*NATS[1:], *[2 * n for n in NATS[1:]], *NATS[1:5]]), batch)
    records = metric.take_records()
    assert metric.take_records() == {}
    assert list(records) == ["f:1", "f:2"]
    assert records["f:2"].scores() == {
        "user": (12, 2), "template": (8, 1), "answer": (52, 5), "first_answer_token": (16, 2), "end_token": (22, 2),
        "whole_sequence": (72, 8), "output_only": (42, 3), "firefly_multi_turn": (52, 5),
    }  # fmt: skip
    assert records["f:1"].scores()["whole_sequence"] == (36 + 10, 8 + 4)  # two micro_batches of one record
    assert records["f:2"].scores("bytes")["answer"] == (52, 2 + 3 + 4)
    assert records["f:2"].scores("characters")["answer"] == (52, 1 + 1 + 2)


def test_two_halves_add_up_to_the_whole() -> None:
    whole = SegmentMetrics(SIZES, END)
    for start, stop in ((1, 4), (4, 9)):
        part = row()
        part.targets = torch.arange(start, stop)
        whole.update(torch.tensor(NATS[start:stop]), part)
    assert whole.compute() == pytest.approx(metric_of().compute())


def test_weighted_mean() -> None:
    mean = WeightedMean()
    mean.update(torch.tensor([5.0]), torch.tensor([0.0]))
    assert math.isnan(mean.compute())
    mean.update(torch.tensor([1.0, 4.0]), torch.tensor([3.0, 0.0]))
    mean.update(torch.tensor([9.0]), torch.tensor([1.0]))
    assert mean.compute() == pytest.approx(3.0)


def test_perplexity_beyond_a_float_is_infinite() -> None:
    assert perplexity(math.log(7)) == pytest.approx(7)
    assert perplexity(1e6) == math.inf


def test_curves_of_masks_with_the_tokens_of_answers_are_drawn_once() -> None:
    answer = {"nll/answer": 1.0, "perplexity/answer": 2.7, "bits_per_byte/answer": 0.5}
    same = {"nll/output_only": 1.0, "perplexity/output_only": 2.7 * (1 + 1e-12), "bits_per_byte/output_only": 0.5}
    other = {"nll/whole_sequence": 2.0, "perplexity/whole_sequence": 7.4, "perplexity/user": 2.7, "loss": 2.7}
    metrics = {f"val/{name}": value for name, value in {**answer, **same, **other}.items()}
    drawn = curves(metrics)
    assert metrics.keys() - drawn.keys() == {"val/perplexity/output_only", "val/bits_per_byte/output_only"}
    assert drawn == {name: metrics[name] for name in drawn}
    apart = metrics | {"val/perplexity/output_only": 2.8, "val/bits_per_byte/output_only": 0.6}
    assert curves(apart) == apart  # several answers per conversation
    assert curves({"val/perplexity/output_only": float("nan")}).keys() == {"val/perplexity/output_only"}
