from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, Timer

from lit_sft.training.ending import keep_stopped, what_ended


def trainer_of(
    *callbacks: Any, step: int = 5, epochs: int = 2, max_steps: int = -1, max_epochs: int | None = -1
) -> Any:
    progress = SimpleNamespace(current=SimpleNamespace(processed=epochs))
    return SimpleNamespace(
        callbacks=list(callbacks), global_step=step, max_steps=max_steps, max_epochs=max_epochs, should_stop=False,
        fit_loop=SimpleNamespace(epoch_progress=progress),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("limits", "options"),
    [
        ({"max_steps": 5}, "raise --trainer.max_steps"),
        ({"max_steps": 9, "max_epochs": 2}, "raise --trainer.max_epochs"),
        ({"max_steps": 5, "max_epochs": 3}, "raise --trainer.max_steps"),
        ({"max_steps": 5, "max_epochs": 2}, "raise --trainer.max_steps and --trainer.max_epochs"),
        ({"max_steps": 9, "max_epochs": None}, None),
    ],
)
def test_the_advice_names_the_limit_that_was_reached(limits: dict[str, Any], options: str | None) -> None:
    ending = what_ended(trainer_of(**limits))
    if options is None:
        assert ending is None
    else:
        assert ending is not None
        assert (ending.advice, ending.is_early) == (f"to continue, {options}", False)


def test_time_is_a_limit_too(monkeypatch: pytest.MonkeyPatch) -> None:
    timer = Timer(duration={"seconds": 60})
    for left, advice in ((1.0, None), (0.0, "to continue, raise --trainer.max_time")):
        monkeypatch.setattr(timer, "time_remaining", lambda left=left: left)
        ending = what_ended(trainer_of(timer))
        assert (ending and ending.advice) == advice


def stopped_state(stopping: EarlyStopping, scores: list[float]) -> dict[str, Any]:
    """The callback's state after it has seen these scores."""
    for score in scores:
        should_stop, _ = stopping._evaluate_stopping_criteria(torch.tensor(score))
    assert should_stop
    return {"callbacks": {stopping.state_key: stopping.state_dict()}, "figures": {"loss": scores[-1]}}


@pytest.mark.parametrize(
    ("before", "scores", "now", "reason"),
    [
        (
            {"patience": 2},
            [1.0, 2.0, 3.0],
            {"patience": 2},
            "did not improve on 1 in 2 validations (patience 2)",
        ),
        ({"patience": 2}, [1.0, 2.0, 3.0], {"patience": 3}, None),
        ({"patience": 3}, [1.0, 2.0, 3.0, 4.0], {"patience": 1}, "in 3 validations (patience 1)"),
        ({"stopping_threshold": 0.5}, [1.0, 0.4], {"stopping_threshold": 0.5}, "val/loss passed its threshold 0.5"),
        ({"stopping_threshold": 0.5}, [1.0, 0.4], {"stopping_threshold": 0.1}, None),
        ({"stopping_threshold": 0.5}, [1.0, 0.4], {}, None),
        ({"divergence_threshold": 9.0}, [1.0, 10.0], {"divergence_threshold": 9.0}, "val/loss passed 9.0"),
        ({"divergence_threshold": 9.0}, [1.0, 10.0], {"divergence_threshold": 99.0}, None),
        ({}, [1.0, math.nan], {}, "val/loss was not finite"),
        ({}, [1.0, math.nan], {"check_finite": False}, None),
    ],
)
def test_a_run_that_was_stopped_early_stays_so_unless_its_settings_allow_more(
    before: dict[str, Any], scores: list[float], now: dict[str, Any], reason: str | None
) -> None:
    checkpoint = stopped_state(EarlyStopping("val/loss", **before), scores)
    resumed = EarlyStopping("val/loss", **now)
    trainer = trainer_of(resumed)
    keep_stopped(trainer, checkpoint)
    resumed.load_state_dict(checkpoint["callbacks"][resumed.state_key])
    assert trainer.should_stop == (reason is not None)
    assert resumed.patience == now.get("patience", 3)  # Lightning would take the old one
    ending = what_ended(trainer)
    if reason is None:
        assert ending is None
    else:
        assert ending is not None
        assert ending.is_early
        assert reason in ending.reason
        assert "`trainer.callbacks` in the run's config.yaml" in ending.advice


def test_run_that_was_not_stopped_continues() -> None:
    stopping = EarlyStopping("val/loss", patience=2)
    stopping._evaluate_stopping_criteria(torch.tensor(1.0))
    trainer = trainer_of(stopping)
    keep_stopped(trainer, {"callbacks": {stopping.state_key: stopping.state_dict()}})
    keep_stopped(trainer, {})  # as in a weights-only checkpoint
    assert not trainer.should_stop
    assert what_ended(trainer) is None
