from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from callbacks import RunHealth
from data_modules.sft_data_module import SFTDataModule
from lit_sft.models.adapters import LoraSettings
from lit_sft.models.backbone import BackboneSettings, build_backbone
from lit_sft.training import precision as precision_module
from lit_sft.training.module import LitCausalLM
from lit_sft.training.optimization import OptimizerSettings
from lit_sft.training.precision import check_precision, warn_of_lost_updates
from tests.conftest import MODELS, alpaca_rows
from tests.training import make_module, train

MakeData = Callable[..., SFTDataModule]


@pytest.mark.filterwarnings("ignore:trainer.precision bf16-true")
@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_every_cpu_precision_trains_with_clipping_and_counts_exactly(
    make_data: MakeData, tmp_path: Path, precision: str, tuning: str
) -> None:
    data = make_data(alpaca_rows(40), template="plain", val_fraction=0.3, batch_size=4)
    module = make_module(tuning=tuning, lr=1e-2)
    train(data, tmp_path, module, precision=precision, gradient_clip_val=1.0, accumulate_grad_batches=2, max_epochs=4)
    before, after = module.metrics_before, module.metrics["val"]
    assert after["nll/output_only"] < before["nll/output_only"] - 0.1
    kept = data.ledgers["val"]["tokens"]["kept"]
    assert after["tokens/answer"] == kept["final_answer"]
    assert after["tokens/whole_sequence"] == sum(kept.values()) - len(data.stores["val"])
    assert module.split_metrics["val"].segments.nats.dtype is torch.float64


@pytest.mark.filterwarnings("ignore:trainer.precision 16-true")
@pytest.mark.parametrize("cure", [{}, {"gradient_clip_val": 1.0}])
def test_fp16_weights_diverge_with_and_without_clipping_and_the_error_says_why(
    make_data: MakeData, tmp_path: Path, cure: dict[str, Any]
) -> None:
    data = make_data(alpaca_rows(64), batch_size=4, template="plain", mask="output_only", val_fraction=0.2)
    settings: dict[str, Any] = {"max_epochs": 6, **cure}
    with pytest.raises(ValueError, match=r"expected a finite number[\s\S]*fp16 weights: .* squares.*16-mixed"):
        train(data, tmp_path, make_module(lr=1e-3), precision="16-true", callbacks=[RunHealth()], **settings)
    exact = train(data, tmp_path, make_module(lr=1e-3), precision="32-true", callbacks=[RunHealth()], **settings)
    assert exact.metrics["val"]["loss"] < exact.metrics_before["loss"] - 1


def test_clipping_under_bf16_mixed_bounds_the_gradient(make_data: MakeData, tmp_path: Path) -> None:
    module = make_module()
    norms: list[float] = []
    clip = module.configure_gradient_clipping

    def watch(optimizer: torch.optim.Optimizer, **settings: Any) -> None:
        clip(optimizer, **settings)
        gradients = [p.grad for p in module.backbone.parameters() if p.grad is not None]
        norms.append(float(torch.linalg.vector_norm(torch.stack([g.norm() for g in gradients]))))

    module.configure_gradient_clipping = watch  # type: ignore[method-assign,assignment]
    train(make_data(alpaca_rows(8)), tmp_path, module, precision="bf16-mixed", gradient_clip_val=0.01)
    assert norms
    assert norms == pytest.approx([0.01] * len(norms), rel=1e-3)


def test_fp16_on_a_cpu_is_refused_with_the_reason() -> None:
    for precision in ("16-mixed", "16-true"):
        with pytest.raises(
            ValueError, match=f"--trainer.precision {precision}: fp16 on a CPU is about 200 times slower"
        ):
            check_precision(precision, on_cpu=True)
        check_precision(precision, on_cpu=False)


@pytest.mark.parametrize("has_products", [True, False])
def test_bf16_on_a_cpu_that_cannot_multiply_in_it_warns(monkeypatch: pytest.MonkeyPatch, has_products: bool) -> None:
    monkeypatch.setattr(precision_module, "_has_bf16_products", lambda: has_products)
    with nullcontext() if has_products else pytest.warns(UserWarning, match="cannot multiply in bfloat16"):
        check_precision("bf16-mixed", on_cpu=True)
    check_precision("bf16-mixed", on_cpu=False)
    check_precision("32-true", on_cpu=True)


@pytest.mark.parametrize("name", ["gpt2", "qwen2"])
def test_frozen_layers_in_bf16_give_the_same_numbers_to_the_last_bit(
    make_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    torch.manual_seed(0)
    data = make_data(alpaca_rows(12), template="plain", batch_size=4, val_fraction=0.3)
    build_backbone(BackboneSettings(config=MODELS[name]), data.tokenizer).save_pretrained(tmp_path / "model")  # type: ignore[operator]

    def run() -> LitCausalLM:
        torch.manual_seed(0)
        settings = BackboneSettings(str(tmp_path / "model"), tuning="lora", lora=LoraSettings(rank=2))
        module = LitCausalLM(settings, OptimizerSettings(lr=1e-2))
        return train(data, tmp_path, module, precision="bf16-mixed")

    narrow = run()
    monkeypatch.setattr("lit_sft.training.module.narrow_where_lossless", lambda *_: None)
    wide = run()
    dtypes = [{p.dtype for p in module.backbone.parameters() if not p.requires_grad} for module in (narrow, wide)]
    assert dtypes == [{torch.bfloat16, torch.float32}, {torch.float32}]
    assert narrow.metrics["val"] == wide.metrics["val"]
    for a, b in zip(narrow.backbone.parameters(), wide.backbone.parameters(), strict=True):
        assert not a.requires_grad or torch.equal(a, b)


def test_pure_bf16_with_a_small_learning_rate_warns() -> None:
    with pytest.warns(UserWarning, match="bf16-true with learning rate 1e-05: most updates are smaller"):
        warn_of_lost_updates("bf16-true", 1e-5)
    warn_of_lost_updates("bf16-mixed", 1e-5)
    warn_of_lost_updates("bf16-true", 1e-3)


def test_pure_bf16_really_loses_updates_of_a_small_learning_rate() -> None:
    """The metric behind the warning: the share of N(0, 0.02) weights that change in ten steps of AdamW at 1e-5."""
    torch.manual_seed(0)
    shares = []
    for dtype in (torch.bfloat16, torch.float32):
        weight = torch.nn.Parameter((torch.randn(10_000) * 0.02).to(dtype))
        start = weight.detach().clone()
        optimizer = torch.optim.AdamW([weight], lr=1e-5, weight_decay=0.0)
        for _ in range(10):
            weight.grad = torch.randn_like(weight)
            optimizer.step()
        shares.append(float((weight != start).float().mean()))
    assert shares[0] < 0.3
    assert shares[1] > 0.99
