from __future__ import annotations

import numpy as np
import pytest

from data_modules.rendering.masking import MASKS, resolve_mask, weights_identity
from data_modules.rendering.segments import (
    ASSISTANT_KINDS,
    FINAL_KINDS,
    PROMPT_KINDS,
    TRAINED_KINDS,
    SegmentKind,
)

K = SegmentKind
# a question, a call, its result, an answer with thinking; an answer of weight 0; an answer with thinking and a call
KINDS_OF_TOOLS = np.array(
    [K.TEMPLATE, K.USER, K.TOOL_CALL, K.TOOL_RESULT, K.THINKING, K.ANSWER, K.CONTEXT_ANSWER, K.FINAL_THINKING,
     K.FINAL_ANSWER, K.FINAL_TOOL_CALL], dtype=np.uint8
)  # fmt: skip
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


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ("whole_sequence", [0, 1, 1, 1, 1, 1, 0, 1, 1, 1]),
        ("output_only", [0, 0, 0, 0, 0, 0, 0, 1, 1, 1]),
        ("firefly_multi_turn", [0, 0, 1, 0, 1, 1, 0, 1, 1, 1]),
    ],
)
def test_named_masks_with_thinking_and_tools(mask: str, expected: list[int]) -> None:
    turns = np.arange(10, dtype=np.int16)
    assert MASKS[mask].token_weights(KINDS_OF_TOOLS, turns).tolist() == expected


def test_masks_of_answers_supervise_what_the_model_emits_and_nothing_else() -> None:
    supervised = {name: {kind for kind in K if mask.supervises(kind)} for name, mask in MASKS.items()}
    assert supervised["firefly_multi_turn"] == set(TRAINED_KINDS)
    assert supervised["output_only"] == set(FINAL_KINDS) < set(TRAINED_KINDS)
    assert supervised["whole_sequence"] == set(K) - {K.PADDING, K.CONTEXT_ANSWER}
    assert set(ASSISTANT_KINDS) | set(PROMPT_KINDS) == set(K) - {K.PADDING, K.TEXT}
    assert not set(ASSISTANT_KINDS) & set(PROMPT_KINDS)


def test_a_documents_first_token_is_never_supervised() -> None:
    text = np.full(3, K.TEXT, dtype=np.uint8)
    assert MASKS["whole_sequence"].token_weights(text, np.zeros(3, dtype=np.int16)).tolist() == [0, 1, 1]


def test_prompt_weight_changes_prompt_tokens_only() -> None:
    weights = resolve_mask("firefly_multi_turn", 0.25).token_weights(KINDS, TURNS)
    assert weights.tolist() == [0, 0.25, 0.25, 1, 1, 0.25, 1, 0]
    whole, answers = (resolve_mask(name, 0.25).weights for name in ("whole_sequence", "firefly_multi_turn"))
    assert {kind for kind in K if whole[kind] != answers[kind]} == {K.TEXT}
    assert {kind for kind in K if whole[kind] == 0.25} == set(PROMPT_KINDS)
    assert resolve_mask("output_only") is MASKS["output_only"]


@pytest.mark.parametrize("weight", [-0.1, 1.5])
def test_prompt_weight_outside_0_to_1_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match=r"--data.prompt_weight .*expected a weight between 0 and 1"):
        resolve_mask("output_only", weight)


def test_answer_weight_changes_supervised_answer_tokens_only() -> None:
    weights = resolve_mask("output_only", 0.25, 0.5).token_weights(KINDS, TURNS)
    named = resolve_mask("output_only", 0.25).token_weights(KINDS, TURNS)
    assert weights.tolist() == [0.5 if weight == 1 else weight for weight in named]
    assert 0.5 in weights.tolist()
    whole = resolve_mask("whole_sequence", answer_weight=0.0).weights
    assert {kind for kind in K if whole[kind]} == {*PROMPT_KINDS, K.TEXT}
    assert resolve_mask("output_only", 0.25, 0.5).name == "output_only_prompt0.25_answer0.5"


def test_answer_weight_outside_0_to_1_or_without_effect_is_refused() -> None:
    with pytest.raises(ValueError, match=r"--data.answer_weight 1.5: expected a weight between 0 and 1"):
        resolve_mask("whole_sequence", None, 1.5)
    for prompt_weight in (None, 0.0):
        with pytest.raises(ValueError, match=r"--data.answer_weight 0.5: has no effect if answers alone are trained"):
            resolve_mask("firefly_multi_turn", prompt_weight, 0.5)


@pytest.mark.parametrize("reduction", ["token", "sample", "turn"])
def test_only_the_ratio_of_the_two_weights_matters(reduction: str) -> None:
    shares = []
    for pair in ((0.2, 0.4), (0.5, 1.0), (0.5, None)):
        weights = resolve_mask("output_only", *pair).token_weights(KINDS, TURNS, reduction)  # type: ignore[arg-type]
        shares.append(weights / weights.sum())
    np.testing.assert_allclose(shares[0], shares[1], rtol=1e-6)
    np.testing.assert_array_equal(shares[1], shares[2])


def test_identity_of_weights_has_that_of_answers_only_if_it_is_set() -> None:
    assert weights_identity(0.1, None) == {"--data.prompt_weight": 0.1}
    assert weights_identity(0.1, 0.5) == {"--data.prompt_weight": 0.1, "--data.answer_weight": 0.5}


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
