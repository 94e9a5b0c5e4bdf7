"""TRL's own objectives, run as themselves: their loss and gradients equal ours. `make test-conventions`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from data_modules.batching.batch import collate
from data_modules.rendering.masking import MASKS
from lit_sft.models.adapters import causal_lm
from lit_sft.models.backbone import BackboneSettings, build_backbone
from lit_sft.models.objectives import ObjectiveSettings, objective_of
from tests.conftest import MODELS
from tests.conventions.environments import losses_of_trl
from tests.random_trees import random_examples

pytestmark = [pytest.mark.conventions, pytest.mark.slow]

SAME: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"loss_type": "nll"}),
    ({"name": "dft"}, {"loss_type": "dft"}),
    ({"label_smoothing": 0.1}, {"loss_type": "nll", "label_smoothing_factor": 0.1}),
]
"""Our settings and TRL's."""


@pytest.mark.parametrize("name", ["gpt2", "qwen2"])
def test_losses_and_gradients_equal_those_of_trl(name: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_backbone(BackboneSettings(config=MODELS[name]), tokenizer)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 3  # some tokens become likely
    causal_lm(model).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    examples = [example for seed in range(3) for example in random_examples(seed) if len(example) > 4][:8]
    batch = collate(examples, mask=MASKS["firefly_multi_turn"], pack=True)
    weights = batch.weights[0].split(list(batch.lengths))
    job = {
        "model": str(tmp_path / "model"),
        "input_ids": [example.input_ids.tolist() for example in examples],
        "labels": [
            [int(token) if weight else -100 for token, weight in zip(example.input_ids, share, strict=True)]
            for example, share in zip(examples, weights, strict=True)
        ],
        "settings": [theirs for _, theirs in SAME],
    }
    found = losses_of_trl("run_trl_objectives.py", job, tmp_path)
    assert len({round(loss, 4) for loss, _ in found}) == len(SAME)
    for (ours, theirs), (loss, gradients) in zip(SAME, found, strict=True):
        total, _ = objective_of(ObjectiveSettings(**ours))(model, batch)
        mean = total / len(batch.targets)
        assert float(mean.detach()) == pytest.approx(loss, rel=1e-5), theirs
        own = torch.autograd.grad(mean, list(model.parameters()))
        for (key, _), gradient in zip(model.named_parameters(), own, strict=True):
            torch.testing.assert_close(gradient, gradients[key], rtol=1e-3, atol=1e-5, msg=f"{theirs}: {key}")
