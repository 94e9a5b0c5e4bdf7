from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import TQDMProgressBar

from data_modules.sft_data_module import SFTDataModule
from lit_sft.training.progress_lines import ProgressLines, lines_without_terminal
from tests.conftest import alpaca_rows
from tests.training import make_module, make_trainer


class Clock(Callback):
    """A training batch takes four seconds, a validation batch thirty."""

    def __init__(self) -> None:
        self.now, self.tokens, self.losses = 0.0, [0], []

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        self.now += 4
        self.tokens.append(self.tokens[-1] + sum(micro_batch.num_tokens for micro_batch in batch))

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
        self.losses.append((float(outputs["nats"]), float(outputs["weight"])))

    def on_validation_batch_start(self, *_: Any) -> None:
        self.now += 30


def test_a_log_file_gets_step_loss_speed_and_time_left(make_data: Callable[..., SFTDataModule], tmp_path: Path) -> None:
    clock, said = Clock(), []
    lines = ProgressLines(said.append, lambda: clock.now)
    data = make_data(alpaca_rows(40), val_fraction=0.2, batch_size=4, eval_batch_size=4)
    settings = {"max_steps": 11, "max_epochs": -1, "limit_val_batches": 2, "enable_progress_bar": True}
    trainer = make_trainer(tmp_path, callbacks=[clock, lines], **settings)
    trainer.fit(make_module(), datamodule=data)
    assert trainer.num_training_batches == 8

    def mean(first: int, last: int) -> str:
        nats, weights = zip(*clock.losses[first:last], strict=True)
        return f"loss {sum(nats) / sum(weights):.4f}"

    def speed(first: int, last: int) -> str:
        return f"{(clock.tokens[last] - clock.tokens[first]) / (4 * (last - first)):,.0f} tokens/s"

    training = [line for line in said if line.startswith("step")]
    assert training == [
        f"step 1 of 11, {mean(0, 1)}, {speed(0, 1)}",
        f"step 3 of 11, {mean(1, 3)}, {speed(1, 3)}, 32 s left",
        f"step 6 of 11, {mean(3, 6)}, {speed(3, 6)}, 20 s left",
        # after a minute of validation, which counts for the time left and not for the speed
        f"step 9 of 11, {mean(6, 9)}, {speed(6, 9)}, 21 s left",
        f"step 11 of 11, {mean(9, 11)}, {speed(9, 11)}",
    ]
    validations = [re.sub(r"\d\.\d{4}", "X", line) for line in said if line.startswith("validation")]
    assert validations == [
        "validation: 1 of 2 batches",
        "validation: 2 of 2 batches",
        "validation before training: loss X",
        "validation: 1 of 2 batches",
        "validation: 2 of 2 batches",
        "validation after step 8: loss X",
        "validation: 1 of 2 batches",
        "validation: 2 of 2 batches",
        "validation after step 11: loss X",
    ]


def test_progress_lines_are_for_log_files_unless_the_user_chose_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    def kinds(callbacks: list[Callback], enabled: bool | None) -> list[type]:
        return [type(callback) for callback in lines_without_terminal(callbacks, enabled, print)]

    assert kinds([], None) == kinds([], True) == [ProgressLines]
    assert kinds([], False) == []
    assert kinds([TQDMProgressBar()], None) == [TQDMProgressBar]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert kinds([], None) == []


def test_validation_alone_is_not_called_before_training(
    make_data: Callable[..., SFTDataModule], tmp_path: Path
) -> None:
    lines: list[str] = []
    trainer = make_trainer(tmp_path, callbacks=[ProgressLines(lines.append)], enable_progress_bar=True)
    trainer.validate(make_module(), datamodule=make_data(alpaca_rows(10), val_fraction=0.3), verbose=False)
    assert re.fullmatch(r"validation: loss [\d.]+", lines[-1])
