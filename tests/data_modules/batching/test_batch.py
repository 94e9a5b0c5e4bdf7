from __future__ import annotations

import numpy as np
import torch

from data_modules.batching.batch import collate
from data_modules.encoding.example import Example
from data_modules.rendering.masking import MASKS
from data_modules.rendering.segments import SegmentKind

K = SegmentKind


def example(kinds: list[K], origin: str) -> Example:
    size = len(kinds)
    return Example(
        np.arange(10, 10 + size, dtype=np.int32),
        np.array(kinds, dtype=np.uint8),
        np.zeros(size, dtype=np.int16),
        origin,
    )


EXAMPLES = [example([K.USER, K.FINAL_ANSWER, K.FINAL_ANSWER], "a:1"), example([K.TEMPLATE, K.FINAL_ANSWER], "a:2")]


def test_collate_pads_on_the_right_and_lists_the_supervised_targets() -> None:
    batch = collate(EXAMPLES, mask=MASKS["output_only"], pad_token_id=12)
    assert batch.input_ids.tolist() == [[10, 11, 12], [10, 11, 12]]
    assert batch.kinds.tolist() == [[K.USER, K.FINAL_ANSWER, K.FINAL_ANSWER], [K.TEMPLATE, K.FINAL_ANSWER, K.PADDING]]
    assert batch.targets.tolist() == [1, 2, 4]  # a token with the pad id is not padding in row 0
    assert (batch.normaliser, batch.num_tokens, batch.origins) == (3.0, 5, ("a:1", "a:2"))


def test_scoring_predicts_every_token_but_the_first_of_each_row() -> None:
    batch = collate(EXAMPLES, mask=MASKS["output_only"], score_all=True)
    assert batch.targets.tolist() == [1, 2, 4]
    whole = [example([K.USER] * 3, "a:1")]
    assert collate(whole, mask=MASKS["output_only"]).targets.tolist() == []
    assert collate(whole, mask=MASKS["output_only"], score_all=True).targets.tolist() == [1, 2]


def test_batch_moves_to_a_device_as_one() -> None:
    moved = collate(EXAMPLES, mask=MASKS["output_only"]).to("meta")
    tensors = (moved.input_ids, moved.kinds, moved.turns, moved.weights, moved.targets)
    assert {tensor.device for tensor in tensors} == {torch.device("meta")}
    assert moved.normaliser == 3.0
