from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from callbacks import WeightHistograms
from data_modules.errors import UserError


def histograms(folder: Path) -> dict[str, list[Any]]:
    events = EventAccumulator(str(folder), size_guidance={"histograms": 0}).Reload()
    return {name: events.Histograms(name) for name in events.Tags()["histograms"]}


def test_every_trained_tensor_and_its_gradient_is_drawn_when_due(fit: Callable[..., Any], tmp_path: Path) -> None:
    run = fit([WeightHistograms(every_n_steps=2)], logger=TensorBoardLogger(tmp_path, name="", version=""))
    found = histograms(tmp_path)
    trained = dict(run.module.named_parameters())
    assert set(found) == {f"{what}/{name}" for what in ("weights", "gradients") for name in trained}
    assert all([point.step for point in points] == [0, 2] for points in found.values())
    counts = {name: found[f"weights/{name}"][0].histogram_value.num for name in trained}
    assert counts == {name: parameter.numel() for name, parameter in trained.items()}


def test_histograms_change_no_weight(fit: Callable[..., Any], tmp_path: Path) -> None:
    plain, drawn = (
        fit(callbacks, logger=TensorBoardLogger(tmp_path, name="tb"), dropout=0.1).weights()
        for callbacks in ([], [WeightHistograms(every_n_steps=1)])
    )
    assert all(plain[name].equal(drawn[name]) for name in plain)


def test_gradients_can_be_left_out(fit: Callable[..., Any], tmp_path: Path) -> None:
    fit([WeightHistograms(gradients=False)], logger=TensorBoardLogger(tmp_path, name="", version=""))
    assert {name.partition("/")[0] for name in histograms(tmp_path)} == {"weights"}


def test_run_that_does_not_log_to_tensorboard_is_refused(fit: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"WeightHistograms draws in TensorBoard, .*`--run.loggers \[tensorboard\]`"):
        fit([WeightHistograms()], logger=CSVLogger(tmp_path))


def test_interval_below_one_is_refused() -> None:
    with pytest.raises(UserError, match="WeightHistograms every_n_steps 0: expected at least 1"):
        WeightHistograms(every_n_steps=0)
