"""AdamW with averages of 8 bits: close to AdamW, small, and resumed bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from data_modules.sft_data_module import SFTDataModule
from lit_sft.training.optimization import OptimizerSettings, build_optimizer
from tests.lit_sft.training.test_resuming import Diary, run

pytest.importorskip("bitsandbytes", reason="needs the extra `8bit`")

MakeData = Callable[..., SFTDataModule]

pytestmark = [
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]


def tensors_of(state: Any) -> Iterator[torch.Tensor]:
    """All tensors of an optimiser's state, however deep."""
    if isinstance(state, torch.Tensor):
        yield state
    elif isinstance(state, dict):
        for value in state.values():
            yield from tensors_of(value)


def size_of(optimizer: torch.optim.Optimizer) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors_of(optimizer.state_dict()["state"]))


def trained(name: Any, steps: int = 60) -> tuple[list[float], torch.optim.Optimizer]:
    """The losses of a small network that learns a fixed function."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 256), nn.Tanh(), nn.Linear(256, 64))
    inputs = torch.randn(256, 64)
    targets = torch.tanh(inputs @ torch.randn(64, 64) / 8)
    optimizer = build_optimizer(network, OptimizerSettings(name=name, lr=3e-3, weight_decay=0.01))
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (network(inputs) - targets).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, optimizer


def test_losses_stay_within_two_percent_of_adamw_with_a_quarter_of_its_state() -> None:
    (exact, adamw), (rounded, adamw_8bit) = trained("adamw"), trained("adamw_8bit")
    assert exact[-1] < exact[0] / 10
    assert rounded == pytest.approx(exact, rel=0.02)
    assert rounded != exact
    assert size_of(adamw_8bit) < 0.3 * size_of(adamw)


def test_matrices_are_decayed_and_vectors_are_not() -> None:
    linear = nn.Linear(64, 64)
    optimizer = build_optimizer(linear, OptimizerSettings(name="adamw_8bit", weight_decay=0.1))
    assert [(group["weight_decay"], group["params"][0] is linear.weight) for group in optimizer.param_groups] == [
        (0.1, True),
        (0.0, False),
    ]


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_resuming_is_bit_identical(make_data: MakeData, tmp_path: Path, tuning: str) -> None:
    settings: dict[str, Any] = {"tuning": tuning, "optimizer": "adamw_8bit", "val_check_interval": 3}
    straight = Diary(tmp_path)
    end = run(make_data, tmp_path, straight, **settings)
    states = list(tensors_of(end.trainer.optimizers[0].state_dict()["state"]))
    assert any(state.dtype == torch.uint8 for state in states) is (tuning == "full")  # small ones keep 32 bits
    for moment in ("batch 0.1", "validation at step 1", "start of 1.6", "batch 2.9"):
        resumed = Diary()
        ends = run(make_data, tmp_path, resumed, fit={"ckpt_path": straight.saved[moment]}, **settings)
        assert resumed.entries == straight.entries[len(straight.entries) - len(resumed.entries) :], moment
        for one, other in zip(end.state_dict().values(), ends.state_dict().values(), strict=True):
            assert torch.equal(one, other)
        again = tensors_of(ends.trainer.optimizers[0].state_dict()["state"])
        assert all(torch.equal(one, other) for one, other in zip(states, again, strict=True))
