from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from data_modules.sft_data_module import SFTDataModule
from lit_sft.training.lr_range import Point, RangeTest, has_diverged, smoothed, suggest
from tests.conftest import alpaca_rows
from tests.training import make_module, make_trainer

MakeData = Callable[..., SFTDataModule]
STEPS = 100


def points(change: Callable[[float], float], steps: int = STEPS) -> list[Point]:
    """A test from 1e-6 to 1 whose changes are a function of the logarithm of the rate, to the base 10."""
    rates = [-6 + 6 * step / (STEPS - 1) for step in range(steps)]
    return [Point(10**rate, 5 + change(rate), change(rate)) for rate in rates]


def valley(rate: float) -> float:
    """Lowest, by 2, at 1e-2; back at 0 at 1e-4 and 1."""
    return min(0.0, ((rate + 2) ** 2 - 4) / 2)


def test_suggestion_is_a_third_of_the_rate_with_the_lowest_loss() -> None:
    found = suggest(points(valley), STEPS)
    assert found.lr == pytest.approx(1e-2 / 3, rel=0.1)
    assert "the loss is lowest at 0.0" in found.reason
    assert "1.99 below that of the initial weights" in found.reason


def test_suggestion_does_not_depend_on_how_difficult_the_batches_are() -> None:
    noisy = [Point(p.lr, p.loss + 3 * math.sin(at), p.change) for at, p in enumerate(points(valley))]
    assert suggest(noisy, STEPS) == suggest(points(valley), STEPS)


@pytest.mark.parametrize(
    ("curve", "reason"),
    [
        (points(lambda rate: -(rate + 6)), "still falling at 1; raise `--max_lr`"),
        (points(lambda rate: 0.001 * math.sin(20 * rate)), "fell at no learning rate; raise `--max_lr` or `--steps`"),
        (points(lambda rate: 2 * (rate + 5))[:40], "the loss rose from 1e-06 on; lower `--min_lr`"),
        (points(valley)[:8], "diverged at once; lower `--min_lr`"),
        ([Point(1e-6, math.nan, math.nan)], "diverged at once; lower `--min_lr`"),
    ],
)
def test_curve_without_a_valley_gives_no_rate_but_a_reason(curve: list[Point], reason: str) -> None:
    found = suggest(curve, STEPS)
    assert found.lr is None
    assert reason in found.reason


def test_test_ends_when_the_loss_has_risen_as_far_as_it_fell() -> None:
    curve = points(lambda rate: (rate + 3) ** 2 - 4)
    ends = next(end for end in range(1, STEPS) if has_diverged(curve[:end], STEPS))
    low = min(smoothed(curve[:ends], STEPS))
    assert curve[ends - 1].change > 0 > low
    assert not any(has_diverged(points(lambda rate: -(rate + 6))[:end], STEPS) for end in range(1, STEPS))


def run(test: RangeTest, data: SFTDataModule, folder: Path, module: Any = None, **settings: Any) -> RangeTest:
    module = module or make_module(schedule="cosine", warmup_steps=50)
    limits = {"max_steps": test.steps, "max_epochs": -1, "limit_val_batches": 0, "num_sanity_val_steps": 0}
    make_trainer(folder, callbacks=[test], **limits, **settings).fit(module, datamodule=data)
    return test


def test_rates_grow_evenly_and_the_schedule_does_not_apply(make_data: MakeData, tmp_path: Path) -> None:
    test = run(RangeTest(1e-4, 1e-2, 5), make_data(alpaca_rows(20), batch_size=4), tmp_path)
    assert [point.lr for point in test.points] == pytest.approx([1e-4, 10**-3.5, 1e-3, 10**-2.5, 1e-2])
    assert test.points[0].change == pytest.approx(0, abs=1e-6)
    assert test.points[-1].change < -0.01


@pytest.mark.parametrize(("batch_size", "settings"), [(4, {"token_budget": 60}), (2, {}), (1, {})])
def test_loss_of_a_step_is_that_of_all_its_micro_batches(
    make_data: MakeData, tmp_path: Path, batch_size: int, settings: dict[str, Any]
) -> None:
    rows = alpaca_rows(20)
    whole = run(RangeTest(1e-4, 1e-2, 4), make_data(rows, batch_size=4, shuffle=False), tmp_path)
    data = make_data(rows, batch_size=batch_size, shuffle=False, **settings)
    parts = run(RangeTest(1e-4, 1e-2, 4), data, tmp_path, accumulate_grad_batches=4 // batch_size)
    for expected, found in zip(whole.points, parts.points, strict=True):
        assert found.loss == pytest.approx(expected.loss, abs=1e-4)
        assert found.change == pytest.approx(expected.change, abs=1e-4)


@pytest.mark.filterwarnings("ignore:answers end with")
@pytest.mark.parametrize("settings", [{"tuning": "lora"}, {"name_of_optimizer": "muon"}])
def test_adapters_and_muon_take_the_rates_too(make_data: MakeData, tmp_path: Path, settings: dict[str, Any]) -> None:
    test = run(RangeTest(1e-3, 1e-1, 6), make_data(alpaca_rows(20), batch_size=4), tmp_path, make_module(**settings))
    assert test.points[-1].change < -0.01


def test_loss_that_is_not_finite_ends_the_test_and_not_the_command(make_data: MakeData, tmp_path: Path) -> None:
    module = make_module()
    data = make_data(alpaca_rows(20), batch_size=4)
    objective = module.objective
    seen = []

    def fails_at_last(*given: Any) -> Any:
        total, nats = objective(*given)
        seen.append(total)
        # twice in a step: also with the initial weights
        return (total * math.inf, nats) if len(seen) >= 6 else (total, nats)

    module.objective = fails_at_last
    test = run(RangeTest(1e-4, 1e-2, 10), data, tmp_path, module)
    assert len(test.points) == 3
    assert math.isfinite(test.points[1].loss)
    assert not math.isfinite(test.points[2].loss)
    assert suggest(test.points, 10).lr is None


@pytest.mark.parametrize("accumulated", [1, 2])
def test_dropout_is_the_same_for_the_initial_weights(make_data: MakeData, tmp_path: Path, accumulated: int) -> None:
    data, module = make_data(alpaca_rows(20), batch_size=2, token_budget=60), make_module(dropout=0.3)
    test = run(RangeTest(1e-9, 1e-8, 5), data, tmp_path, module, accumulate_grad_batches=accumulated)
    assert [point.change for point in test.points] == pytest.approx([0.0] * 5, abs=1e-5)


def test_initial_weights_are_measured_without_changing_training(make_data: MakeData, tmp_path: Path) -> None:
    class Plain(RangeTest):
        def _loss_of(self, *_: Any) -> torch.Tensor:
            return torch.zeros(())

    data, losses, weights = make_data(alpaca_rows(20), batch_size=4), [], []
    for kind in (RangeTest, Plain):
        module = make_module(dropout=0.2)
        losses.append([point.loss for point in run(kind(1e-4, 1e-2, 6), data, tmp_path, module).points])
        weights.append(module.state_dict())
    assert losses[0] == losses[1]
    assert all(value.equal(weights[1][name]) for name, value in weights[0].items())
