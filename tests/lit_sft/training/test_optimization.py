from __future__ import annotations

import pytest
import torch
from torch import nn

from lit_sft.training.optimization import OptimizerSettings, build_optimizer, build_schedule, learning_rate_factor


def factors(steps: int = 11, **settings: object) -> list[float]:
    return [learning_rate_factor(step, total_steps=10, **settings) for step in range(steps)]  # type: ignore[arg-type]


def test_linear_schedule_warms_up_and_falls_to_its_floor() -> None:
    assert factors(schedule="linear", warmup_steps=2) == pytest.approx(
        [0.5, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0]
    )
    assert factors(schedule="linear", warmup_steps=0, floor=0.5)[-1] == 0.5


def test_cosine_schedule_is_half_way_down_in_the_middle_and_stays_at_its_floor() -> None:
    values = factors(14, schedule="cosine", warmup_steps=0, floor=0.1)
    assert (values[0], values[5]) == pytest.approx((1.0, 0.55))
    assert values[10:] == pytest.approx([0.1] * 4)


def test_constant_schedule_warms_up_only() -> None:
    assert factors(schedule="constant", warmup_steps=2) == [0.5] + [1.0] * 10


@pytest.mark.parametrize(("settings", "steps"), [({"warmup_ratio": 0.03}, 30), ({"warmup_steps": 7}, 7), ({}, 0)])
def test_warmup_as_steps_or_ratio(settings: dict[str, float], steps: int) -> None:
    assert OptimizerSettings(**settings).num_warmup_steps(1000) == steps  # type: ignore[arg-type]


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match=r"warmup_steps and --model.optimizer.warmup_ratio are both set"):
        OptimizerSettings(warmup_steps=1, warmup_ratio=0.1)
    with pytest.raises(ValueError, match=r"--model.optimizer.lr -1: expected a positive"):
        OptimizerSettings(lr=-1)


def test_decay_is_on_matrices_only_and_frozen_weights_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2), nn.Embedding(4, 2))
    model[2].weight.requires_grad_(False)
    optimizer = build_optimizer(model, OptimizerSettings(weight_decay=0.1))
    decayed, plain = optimizer.param_groups
    assert (decayed["weight_decay"], [p.shape for p in decayed["params"]]) == (0.1, [torch.Size([2, 3])])
    assert (plain["weight_decay"], len(plain["params"])) == (0.0, 3)
    assert optimizer.defaults["fused"] is True


def test_schedule_drives_the_optimizer() -> None:
    optimizer = build_optimizer(nn.Linear(2, 2), OptimizerSettings(lr=0.4))
    schedule = build_schedule(optimizer, OptimizerSettings(lr=0.4, schedule="linear", warmup_steps=1), 5)
    rates = []
    for _ in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.4, 0.4, 0.3, 0.2, 0.1])
