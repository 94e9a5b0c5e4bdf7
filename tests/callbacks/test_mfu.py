"""The share of a GPU's peak rate that training uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from lightning.pytorch import Callback
from transformers import AutoConfig

from callbacks import run_health
from callbacks.run_health import RunHealth
from lit_sft.models.adapters import causal_lm
from lit_sft.models.flops import model_flops, peak_flops


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA GeForce RTX 9999", None),
    ],
)
def test_peak_rates_by_name(name: str, peak: float | None) -> None:
    assert peak_flops(name) == peak


def test_mfu_is_the_needed_operations_over_the_peak(fit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(run_health.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(run_health, "_peak_of", lambda trainer: 1e9)

    class Count(Callback):
        def __init__(self) -> None:
            self.needed: list[float] = []
            self.logged: list[float] = []

        def on_before_backward(self, *_: Any) -> None:
            clock[0] += 2.0  # a batch takes two seconds

        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            (part,) = batch
            work = model_flops(causal_lm(module.backbone).config)
            self.needed.append(work.flops(part.lengths, len(part.targets), "full"))
            self.logged.append(float(trainer.callback_metrics["train/mfu"]))

    count = Count()
    fit([RunHealth(every_n_steps=1), count], max_steps=3)
    assert len(count.needed) == 3
    assert count.logged == pytest.approx([needed / 2.0 / 1e9 for needed in count.needed], rel=1e-5)


def test_mfu_is_not_logged_without_a_known_peak(fit: Callable[..., Any]) -> None:
    class Absent(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            assert "train/tokens_per_second" in trainer.callback_metrics
            assert "train/mfu" not in trainer.callback_metrics

    fit([RunHealth(every_n_steps=1), Absent()], max_steps=2)


def test_a_token_passes_only_its_own_experts() -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2}
    experts = {"intermediate_size": 48, "num_local_experts": 8, "num_experts_per_tok": 2, "head_dim": 8}
    config = AutoConfig.for_model("mixtral", vocab_size=50, **sizes, **experts)
    attention = 2 * 32 * 32 + 2 * 32 * 16
    assert model_flops(config).layers == attention + 2 * 3 * 32 * 48
