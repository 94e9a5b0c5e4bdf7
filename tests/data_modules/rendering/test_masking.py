from __future__ import annotations

import numpy as np
import pytest

from data_modules.rendering.masking import MASKS, resolve_mask
from data_modules.rendering.segments import SegmentKind

K = SegmentKind
KINDS = np.array([K.TEMPLATE, K.SYSTEM, K.USER, K.ANSWER, K.ANSWER, K.USER, K.FINAL_ANSWER, K.PADDING], dtype=np.uint8)
TURNS = np.array([0, 0, 1, 2, 2, 3, 4, 0], dtype=np.int16)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ("whole_sequence", [0, 1, 1, 1, 1, 1, 1, 0]),
        ("output_only", [0, 0, 0, 0, 0, 0, 1, 0]),
        ("firefly_multi_turn", [0, 0, 0, 1, 1, 0, 1, 0]),
    ],
)
def test_named_masks(mask: str, expected: list[int]) -> None:
    assert MASKS[mask].token_weights(KINDS, TURNS).tolist() == expected


def test_a_documents_first_token_is_never_supervised() -> None:
    text = np.full(3, K.TEXT, dtype=np.uint8)
    assert MASKS["whole_sequence"].token_weights(text, np.zeros(3, dtype=np.int16)).tolist() == [0, 1, 1]


def test_prompt_weight_changes_prompt_tokens_only() -> None:
    weights = resolve_mask("firefly_multi_turn", 0.25).token_weights(KINDS, TURNS)
    assert weights.tolist() == [0, 0.25, 0.25, 1, 1, 0.25, 1, 0]
    prompt = resolve_mask("firefly_multi_turn", 0.25).weights[:6]
    assert resolve_mask("whole_sequence", 0.25).weights == (*prompt, 1.0, 0.0)
    assert resolve_mask("output_only") is MASKS["output_only"]


@pytest.mark.parametrize("weight", [-0.1, 1.5])
def test_prompt_weight_outside_0_to_1_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match=r"--data.prompt_weight .*expected a weight between 0 and 1"):
        resolve_mask("output_only", weight)


def test_sample_reduction_gives_supervised_tokens_total_weight_one() -> None:
    weights = MASKS["firefly_multi_turn"].token_weights(KINDS, TURNS, "sample")
    np.testing.assert_allclose(weights, [0, 0, 0, 1 / 3, 1 / 3, 0, 1 / 3, 0], rtol=1e-6)


def test_turn_reduction_gives_each_turn_total_weight_one() -> None:
    weights = MASKS["firefly_multi_turn"].token_weights(KINDS, TURNS, "turn")
    np.testing.assert_allclose(weights, [0, 0, 0, 0.5, 0.5, 0, 1, 0], rtol=1e-6)


@pytest.mark.parametrize("reduction", ["token", "sample", "turn"])
def test_all_weights_are_zero_without_supervised_tokens(reduction: str) -> None:
    user = np.full(4, K.USER, dtype=np.uint8)
    weights = MASKS["output_only"].token_weights(user, np.zeros(4, dtype=np.int16), reduction)  # type: ignore[arg-type]
    assert weights.tolist() == [0, 0, 0, 0]
