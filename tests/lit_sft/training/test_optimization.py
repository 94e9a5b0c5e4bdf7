from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, SingleDeviceStrategy
from torch import nn

from data_modules.errors import UserError
from data_modules.sft_data_module import SFTDataModule
from lit_sft.models.backbone import BackboneSettings
from lit_sft.training.module import LitCausalLM
from lit_sft.training.optimization import (
    OptimizerSettings,
    build_optimizer,
    build_schedule,
    check_optimizer,
    learning_rate_factor,
    options_of,
    restore_options,
)
from tests.conftest import alpaca_rows
from tests.training import make_module, make_trainer


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


def test_wsd_keeps_the_peak_and_decays_in_its_last_steps() -> None:
    given = {"schedule": "wsd", "warmup_steps": 2, "decay_steps": 4}
    stable = [0.5, 1, 1, 1, 1, 1, 1]
    assert factors(12, **given, decay_shape="linear") == pytest.approx([*stable, 0.75, 0.5, 0.25, 0, 0])
    roots = [0.5, 0.2928932188, 0.1339745962, 0, 0]  # 1 - sqrt(1/4), sqrt(2/4), sqrt(3/4), 1
    assert factors(12, **given) == pytest.approx([*stable, *roots])
    assert factors(12, **given, floor=0.2)[7:] == pytest.approx([0.2 + 0.8 * root for root in roots])


def test_inverse_sqrt_falls_from_the_end_of_the_warmup_to_its_floor() -> None:
    values = factors(16, schedule="inverse_sqrt", warmup_steps=4, floor=0.55)
    assert values[:4] == pytest.approx([0.25, 0.5, 0.75, 1])
    assert values[4:9] == pytest.approx([0.894427191, 0.8164965809, 0.7559289460, 0.7071067812, 0.6666666667])
    assert values[-1] == 0.55


def test_inverse_sqrt_trains_if_its_warmup_rounds_to_no_steps() -> None:
    settings = OptimizerSettings(lr=0.4, schedule="inverse_sqrt", warmup_ratio=0.01)
    optimizer = build_optimizer(nn.Linear(2, 2), settings)
    schedule = build_schedule(optimizer, settings, 10)
    assert settings.num_warmup_steps(10) == 0
    assert [schedule.lr_lambdas[0](step) for step in (0, 3, 8)] == pytest.approx([1, 1 / 2, 1 / 3])


@pytest.mark.parametrize(
    ("settings", "steps"),
    [({}, 20), ({"decay_ratio": 0.1}, 10), ({"decay_steps": 7}, 7), ({"decay_steps": 99, "warmup_steps": 5}, 95)],
)
def test_decay_of_wsd_as_steps_or_ratio(settings: dict[str, Any], steps: int) -> None:
    assert OptimizerSettings(schedule="wsd", **settings).num_decay_steps(100) == steps


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decay_steps": 5}, "are for `wsd` only, but --model.optimizer.schedule is cosine"),
        ({"decay_shape": "linear", "schedule": "linear"}, "are for `wsd` only"),
        ({"schedule": "wsd", "decay_steps": 5, "decay_ratio": 0.1}, "are both set; expected one"),
        ({"schedule": "wsd", "decay_steps": -1}, "decay_steps -1: expected 0 or more"),
        ({"schedule": "wsd", "decay_ratio": 1.5}, "decay_ratio 1.5: expected a fraction"),
        ({"schedule": "constant", "min_lr_ratio": 0.1}, "min_lr_ratio 0.1: with `--model.optimizer.schedule constant`"),
        ({"schedule": "inverse_sqrt"}, "falls from the end of the warm-up, but there is none"),
        ({"name": "adafactor", "betas": (0.9, 0.95)}, r"betas \[0.9, 0.95\], eps 1e-08: Adafactor has neither"),
        ({"name": "adafactor", "eps": 1e-6}, "Adafactor has neither"),
        ({"name": "adafactor", "momentum": 0.9}, "only Muon has a momentum"),
    ],
)
def test_settings_without_effect_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        OptimizerSettings(**settings)


def test_identity_names_new_settings_only_where_they_are_used() -> None:
    plain = OptimizerSettings().identity()
    assert OptimizerSettings(name="adafactor").identity() == plain | {"name": "adafactor"}
    decay = {"schedule": "wsd", "decay_steps": None, "decay_ratio": 0.1, "decay_shape": "sqrt"}
    assert OptimizerSettings(schedule="wsd", decay_ratio=0.1).identity() == plain | decay


def test_adafactor_takes_the_steps_of_its_paper() -> None:
    """Shazeer and Stern (arXiv 1804.04235), algorithm 4, step by step in float64."""
    torch.manual_seed(0)
    layer = nn.Linear(6, 4).double()
    expected = {name: p.detach().clone() for name, p in layer.named_parameters()}
    optimizer = build_optimizer(layer, OptimizerSettings(name="adafactor", lr=0.01, weight_decay=0.1))
    tiny = torch.finfo(torch.float64).eps
    rows, columns, squares = torch.zeros(4, 1), torch.zeros(1, 6), torch.zeros(4)
    for step in range(1, 4):
        for parameter in layer.parameters():
            parameter.grad = torch.randn_like(parameter)
        beta = 1 - step**-0.8
        for name, parameter in layer.named_parameters():
            gradient = parameter.grad
            assert gradient is not None
            size = max(1e-3, float(expected[name].square().mean().sqrt()))
            if name == "weight":
                rows = beta * rows + (1 - beta) * gradient.square().mean(1, keepdim=True)
                columns = beta * columns + (1 - beta) * gradient.square().mean(0, keepdim=True)
                estimate = rows @ columns / rows.mean()
            else:
                squares = beta * squares + (1 - beta) * gradient.square()
                estimate = squares
            update = gradient / estimate.clamp(min=tiny * tiny).sqrt()
            update = update / max(1.0, float(update.square().mean().sqrt()))
            decayed = expected[name] * (1 - 0.01 * 0.1) if name == "weight" else expected[name]
            expected[name] = decayed - 0.01 * size * update
        optimizer.step()
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(parameter.detach(), expected[name], rtol=0, atol=1e-9)


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint")  # batches are skipped by their plan
@pytest.mark.parametrize("name", ["adamw", "muon", "adafactor"])
@pytest.mark.parametrize("schedule", ["linear", "wsd", "inverse_sqrt"])
def test_a_resumed_run_ends_exactly_as_one_straight_through(
    name: str, schedule: str, make_data: Callable[..., SFTDataModule], tmp_path: Path
) -> None:
    given = {"name_of_optimizer": name, "schedule": schedule, "lr": 1e-2, "warmup_steps": 2, "weight_decay": 0.1}

    def run(steps: int, **fit: Any) -> LitCausalLM:
        module = make_module(**given)
        module.total_steps = lambda: 8  # type: ignore[method-assign]  # also of the one that stops before
        trainer = make_trainer(tmp_path, max_steps=steps, limit_val_batches=0)
        trainer.fit(module, datamodule=make_data(alpaca_rows(40), batch_size=4), weights_only=False, **fit)
        assert trainer.global_step == steps
        return module

    straight = run(8)
    run(3).trainer.save_checkpoint(tmp_path / "stopped.ckpt")
    resumed = run(8, ckpt_path=str(tmp_path / "stopped.ckpt"))
    for one, other in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_longer_run_recomputes_when_wsd_decays() -> None:
    settings = OptimizerSettings(lr=1.0, schedule="wsd", decay_ratio=0.5, decay_shape="linear")
    layer = nn.Linear(2, 2)
    optimizer = build_optimizer(layer, settings)
    schedule = build_schedule(optimizer, settings, 8)
    for _ in range(6):
        optimizer.step()
        schedule.step()
    assert optimizer.param_groups[0]["lr"] == 0.5
    longer = build_optimizer(layer, settings)
    rates = build_schedule(longer, settings, 16)
    options = options_of(longer)
    longer.load_state_dict(optimizer.state_dict())
    rates.load_state_dict(schedule.state_dict())
    restore_options(longer, rates, options)
    found = []
    for _ in range(10):
        found.append(longer.param_groups[0]["lr"])
        longer.step()
        rates.step()
    assert found == pytest.approx([1, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])


def test_adafactor_is_refused_where_matrices_are_not_whole() -> None:
    settings, backbone = OptimizerSettings(name="adafactor"), BackboneSettings(pretrained="gpt2", tuning="lora")
    check_optimizer(settings, backbone, SingleDeviceStrategy())
    check_optimizer(settings, backbone, DDPStrategy())
    with pytest.raises(UserError, match=r"name adafactor with ModelParallelStrategy: it needs whole weight"):
        check_optimizer(settings, backbone, ModelParallelStrategy())


def test_8_bit_adam_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(
        UserError, match=r"name adamw_8bit: the package bitsandbytes .* `pip install 'lit_sft\[8bit\]'`"
    ):
        build_optimizer(nn.Linear(2, 2), OptimizerSettings(name="adamw_8bit"))
