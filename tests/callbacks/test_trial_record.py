from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from callbacks import PerplexityMonitor, TrialRecord
from callbacks.trial_record import weights_digest
from data_modules.rendering.masking import MASKS
from lit_sft.models.backbone import BackboneSettings, build_backbone
from lit_sft.training.module import LitCausalLM
from tests.conftest import MODELS


def record(fit: Callable[..., Any], folder: str, **settings: Any) -> dict[str, Any]:
    run = fit([TrialRecord()], folder=folder, **settings)
    found: dict[str, Any] = json.loads((run.folder / "trial.json").read_text())
    return found


def test_runs_with_different_masks_start_equal_and_see_the_same_records(fit: Callable[..., Any]) -> None:
    one, other = (record(fit, mask, data={"mask": mask}) for mask in ("whole_sequence", "output_only"))
    assert one["initial_weights"] == other["initial_weights"]
    assert one["order"] == other["order"]
    assert len(set(one["order"])) == one["step"] == one["of"] == 4
    assert (one["examples"], one["tokens"]) == (other["examples"], other["tokens"])
    assert one["supervised_tokens"] > other["supervised_tokens"] > 0
    assert one["peak_bytes"] > 2**20
    assert one["seconds"] > 0


def test_supervised_tokens_are_those_of_the_mask(fit: Callable[..., Any]) -> None:
    run = fit([watcher := TrialRecord()], data={"mask": "output_only"}, accumulate_grad_batches=2, max_steps=2)
    sampler = run.data.train_sampler()
    sampler.set_epoch(0)
    plans = list(sampler)[:4]
    examples = [run.data.stores["train"][index] for plan in plans for index in plan.indices]
    mask = MASKS["output_only"]
    assert watcher.counts["supervised_tokens"] == sum(
        int((mask.token_weights(example.kinds, example.turns) > 0).sum()) for example in examples
    )
    assert len(watcher.order) == 2


def test_different_seed_or_order_is_detected(fit: Callable[..., Any]) -> None:
    one, other = record(fit, "a"), record(fit, "b", data={"seed": 9})
    assert one["initial_weights"] == other["initial_weights"]
    assert one["order"] != other["order"]


@pytest.mark.parametrize("base", ["gpt2", "qwen2"])
def test_adapters_and_a_base_in_bfloat16_do_not_change_the_digest(base: str, tokenizer: Any) -> None:
    torch.manual_seed(0)
    full = build_backbone(BackboneSettings(config=MODELS[base]), tokenizer)
    torch.manual_seed(0)
    adapted = build_backbone(BackboneSettings(config=MODELS[base], tuning="lora"), tokenizer)
    assert weights_digest(full) == weights_digest(adapted) == weights_digest(adapted.to(torch.bfloat16))
    with torch.no_grad():
        next(full.parameters())[0, 0] += 0.1
    assert weights_digest(full) != weights_digest(adapted)


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
def test_a_resumed_run_has_the_record_of_one_that_was_not_stopped(make_run: Callable[..., Any], tmp_path: Path) -> None:
    def run(folder: str, max_steps: int, **settings: Any) -> dict[str, Any]:
        trainer, module, data = make_run([TrialRecord()], folder=folder, max_steps=max_steps)
        trainer.fit(module, datamodule=data, weights_only=True, **settings)
        trainer.save_checkpoint(tmp_path / "at.ckpt")
        found: dict[str, Any] = json.loads((tmp_path / folder / "trial.json").read_text())
        return {name: found[name] for name in ("step", "order", "tokens", "examples", "initial_weights")}

    straight = run("straight", 4)
    run("stopped", 2)
    assert run("stopped", 4, ckpt_path=tmp_path / "at.ckpt") == straight


def test_training_step_that_returns_only_a_loss_is_recorded(fit: Callable[..., Any]) -> None:
    class LossAlone(LitCausalLM):
        def training_step(self, micro_batches: Any, batch_idx: int) -> torch.Tensor:  # type: ignore[override]
            loss: torch.Tensor = super().training_step(micro_batches, batch_idx)["loss"]
            return loss

    run = fit([TrialRecord(), monitor := PerplexityMonitor()], module=LossAlone)
    recorded = json.loads((run.folder / "trial.json").read_text())
    assert recorded["step"] == 4
    assert recorded["train_loss"] > 0
    assert [row.train_nll for row in monitor.history] == [None] * len(monitor.history)
