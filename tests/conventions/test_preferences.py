"""TRL's DPOTrainer and KTOTrainer, run as themselves: their loss, gradients and rewards equal ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from data_modules.batching.batch import collate
from data_modules.encoding.example import Example
from data_modules.rendering.masking import MASKS
from data_modules.rendering.segments import SegmentKind
from lit_sft.metrics.preferences import PreferenceMetrics
from lit_sft.models.adapters import causal_lm
from lit_sft.models.backbone import BackboneSettings, build_backbone
from lit_sft.models.loss import reference_nll, token_nll
from lit_sft.models.objectives import ObjectiveSettings, objective_of
from lit_sft.models.reference import keep_reference
from tests.conftest import MODELS
from tests.conventions.environments import losses_of_trl
from tests.lit_sft.models.test_preferences import halves, has_answer, random_pairs, rated

pytestmark = [pytest.mark.conventions, pytest.mark.slow]

REWARDS = {
    "reward_margin": "rewards/margins",
    "reward/chosen": "rewards/chosen",
    "reward/rejected": "rewards/rejected",
}
"""Our metrics and TRL's."""


def of_pairs(pairs: list[Example]) -> list[dict[str, Any]]:
    """Pairs as TRL's DPOTrainer collates them."""
    rows = []
    for pair in pairs:
        assert pair.rejected is not None
        prompt, chosen = _split(pair)
        rows.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": _split(pair.rejected)[1]})
    return rows


def of_answers(examples: list[Example]) -> list[dict[str, Any]]:
    """Rated answers as TRL's KTOTrainer collates them."""
    rows = []
    for example in examples:
        assert example.rejected is not None
        is_good = bool(_split(example)[1])
        prompt, answer = _split(example if is_good else example.rejected)
        rows.append({"prompt_ids": prompt, "completion_ids": answer, "label": is_good})
    return rows


def _split(example: Example) -> tuple[list[int], list[int]]:
    size = int((example.kinds == SegmentKind.USER).sum())
    return example.input_ids[:size].tolist(), example.input_ids[size:].tolist()


@pytest.mark.parametrize("name", ["gpt2", "qwen2"])
def test_pairs_have_the_loss_gradients_and_rewards_of_trl(
    name: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    pairs = [pair for seed in range(3) for pair in random_pairs(seed)]
    same: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"name": "dpo", "beta": 0.1}, {"beta": 0.1}),
        ({"name": "dpo", "beta": 0.5}, {"beta": 0.5}),
        ({"name": "apo_zero", "beta": 0.5}, {"beta": 0.5, "loss_type": "apo_zero"}),
    ]
    logged = REWARDS | {"reward_accuracy": "rewards/accuracies"}
    compare("run_trl_dpo.py", pairs, of_pairs(pairs), same, logged, name, tokenizer, tmp_path)


@pytest.mark.parametrize("name", ["gpt2", "qwen2"])
def test_rated_answers_have_the_loss_gradients_and_rewards_of_trl(
    name: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    answers = [each for seed in range(5) for each in rated(seed) if not all(map(has_answer, halves(each)))]
    assert {has_answer(each) for each in answers} == {True, False}
    weights = {"desirable_weight": 2.0, "undesirable_weight": 0.5}
    same: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"name": "apo_zero", "beta": 0.1}, {"beta": 0.1}),
        ({"name": "apo_zero", "beta": 0.5, **weights}, {"beta": 0.5, **weights}),
    ]
    compare("run_trl_kto.py", answers, of_answers(answers), same, REWARDS, name, tokenizer, tmp_path)


def compare(
    driver: str,
    examples: list[Example],
    rows: list[dict[str, Any]],
    same: list[tuple[dict[str, Any], dict[str, Any]]],
    logged_as: dict[str, str],
    name: str,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
) -> None:
    torch.manual_seed(0)
    model = build_backbone(BackboneSettings(config=MODELS[name]), tokenizer)
    keep_reference(model)
    tokenizer.save_pretrained(folder / "model")
    causal_lm(model).save_pretrained(folder / "reference")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
    causal_lm(model).save_pretrained(folder / "model")
    batch = collate(examples, mask=MASKS["output_only"], pairs=True, pack=True, share_prefixes=True)
    folders = {"model": str(folder / "model"), "reference": str(folder / "reference")}
    found = losses_of_trl(driver, {**folders, "rows": rows, "settings": [theirs for _, theirs in same]}, folder)
    assert len({round(loss, 5) for loss, _, _ in found}) == len(same)
    for (ours, _), (loss, gradients, logged) in zip(same, found, strict=True):
        settings = ObjectiveSettings(**ours)
        total, _ = objective_of(settings)(model, batch)
        mean = total / batch.num_pairs
        assert float(mean.detach()) == pytest.approx(loss, rel=1e-5), ours
        own = torch.autograd.grad(mean, list(model.parameters()))
        for (key, _), gradient in zip(model.named_parameters(), own, strict=True):
            torch.testing.assert_close(gradient, gradients[key], rtol=1e-3, atol=1e-5, msg=f"{ours}: {key}")
        metrics = PreferenceMetrics(settings.preference_loss)
        metrics.update(token_nll(model, batch), batch, reference_nll(model, batch))
        values = metrics.compute()
        for mine, name_of_theirs in logged_as.items():
            assert values[mine] == pytest.approx(logged[name_of_theirs], rel=1e-4, abs=1e-5), mine
