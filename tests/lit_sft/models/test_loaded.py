from __future__ import annotations

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies
from transformers import PreTrainedTokenizerFast

from data_modules.batching.prefix_tree import stretches_of
from lit_sft.models import loaded
from lit_sft.models.attention import ordinary_attention
from lit_sft.models.backbone import BackboneSettings, build_backbone
from lit_sft.models.loaded import LoadedModel
from tests.conftest import MODELS
from tests.random_trees import random_documents, random_examples


def make_model(shape: str, tokenizer: PreTrainedTokenizerFast, token_budget: int = 200) -> LoadedModel:
    torch.manual_seed(0)
    backbone = build_backbone(BackboneSettings(config=MODELS[shape]), tokenizer)
    for parameter in backbone.parameters():
        parameter.data *= 3
    return LoadedModel(shape, backbone.eval(), tokenizer, "plain", token_budget)  # type: ignore[arg-type]


def one_by_one(model: LoadedModel, sequences: list[list[int]]) -> list[np.ndarray]:
    return [model.nats([ids])[0] for ids in sequences]


@pytest.mark.parametrize("shape", MODELS)
@hypothesis.given(seed=strategies.integers(0, 2**32 - 1), budget=strategies.integers(1, 300))
@hypothesis.settings(max_examples=20, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_sequences_that_begin_alike_have_the_nats_of_each_alone(
    shape: str, seed: int, budget: int, tokenizer: PreTrainedTokenizerFast
) -> None:
    model = make_model(shape, tokenizer, budget)
    sequences = [ids.tolist() for ids in random_documents(seed)]
    for found, expected in zip(model.nats(sequences), one_by_one(model, sequences), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=2e-6)
        assert found.sum() == pytest.approx(expected.sum(), rel=1e-6)


@pytest.mark.parametrize("budget", [1, 50, 4000])
def test_what_sequences_share_is_computed_once_within_the_budget(
    budget: int, tokenizer: PreTrainedTokenizerFast
) -> None:
    model = make_model("gpt2", tokenizer, budget)
    examples = random_examples(4) + random_examples(5)
    batches = [batch for batch, _ in model.scored(examples)]
    sizes = [len(batch.tree.computed) if batch.tree else batch.input_ids.numel() for batch in batches]
    assert sorted(origin for batch in batches for origin in batch.origins) == sorted(e.origin for e in examples)
    assert all(size <= budget or len(batch.origins) == 1 for size, batch in zip(sizes, batches, strict=True))
    if budget == 4000:
        assert sizes == [sum(map(len, stretches_of([example.input_ids for example in examples])))]
        assert sizes[0] < 0.8 * sum(map(len, examples))


def test_a_batch_has_a_limited_number_of_sequences(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their ids and positions are stored for each, even if all are the same."""
    monkeypatch.setattr(loaded, "_MOST_EXAMPLES", 4)
    model = make_model("gpt2", tokenizer)
    examples = random_examples(4)[:1] * 10
    assert [len(batch.origins) for batch, _ in model.scored(examples)] == [4, 4, 2]


def test_a_model_with_another_attention_computes_every_sequence(tokenizer: PreTrainedTokenizerFast) -> None:
    model = make_model("llama", tokenizer)
    sequences = [ids.tolist() for ids in random_documents(4)]
    expected = model.nats(sequences)
    with ordinary_attention(model.backbone):  # type: ignore[arg-type]
        assert all(batch.tree is None for batch, _ in model.scored(random_examples(4)))
        for ours, theirs in zip(model.nats(sequences), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
