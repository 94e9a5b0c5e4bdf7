"""TRL's DPOTrainer, run as itself: its loss, gradients and rewards equal ours. `make test-conventions`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from data_modules.batching.batch import collate
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
from tests.lit_sft.models.test_preferences import random_pairs

pytestmark = [pytest.mark.conventions, pytest.mark.slow]

BETAS = (0.1, 0.5)

METRICS = {
    "reward_accuracy": "rewards/accuracies",
    "reward_margin": "rewards/margins",
    "reward/chosen": "rewards/chosen",
    "reward/rejected": "rewards/rejected",
}


@pytest.mark.parametrize("name", ["gpt2", "qwen2"])
def test_loss_gradients_and_rewards_equal_those_of_trl(
    name: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = build_backbone(BackboneSettings(config=MODELS[name]), tokenizer)
    keep_reference(model)
    tokenizer.save_pretrained(tmp_path / "model")
    causal_lm(model).save_pretrained(tmp_path / "reference")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
    causal_lm(model).save_pretrained(tmp_path / "model")
    pairs = [pair for seed in range(3) for pair in random_pairs(seed)]
    batch = collate(pairs, mask=MASKS["output_only"], pairs=True, pack=True, share_prefixes=True)
    rows = []
    for pair in pairs:
        assert pair.rejected is not None
        size = int((pair.kinds == SegmentKind.USER).sum())
        ids, others = pair.input_ids.tolist(), pair.rejected.input_ids.tolist()
        rows.append({"prompt_ids": ids[:size], "chosen_ids": ids[size:], "rejected_ids": others[size:]})
    job = {
        "model": str(tmp_path / "model"),
        "reference": str(tmp_path / "reference"),
        "rows": rows,
        "settings": [{"beta": beta} for beta in BETAS],
    }
    found = losses_of_trl("run_trl_dpo.py", job, tmp_path)
    assert len({round(loss, 5) for loss, _, _ in found}) == len(BETAS)
    for beta, (loss, gradients, logged) in zip(BETAS, found, strict=True):
        settings = ObjectiveSettings("dpo", beta=beta)
        total, _ = objective_of(settings)(model, batch)
        mean = total / batch.num_pairs
        assert float(mean.detach()) == pytest.approx(loss, rel=1e-5), beta
        own = torch.autograd.grad(mean, list(model.parameters()))
        for (key, _), gradient in zip(model.named_parameters(), own, strict=True):
            torch.testing.assert_close(gradient, gradients[key], rtol=1e-3, atol=1e-5, msg=f"{beta}: {key}")
        metrics = PreferenceMetrics(settings.preference_loss)
        metrics.update(token_nll(model, batch), batch, reference_nll(model, batch))
        values = metrics.compute()
        for mine, name_of_theirs in METRICS.items():
            assert values[mine] == pytest.approx(logged[name_of_theirs], rel=1e-4, abs=1e-5), mine
