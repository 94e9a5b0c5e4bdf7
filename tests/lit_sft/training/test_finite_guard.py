from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from callbacks.run_health import RunHealth
from data_modules.batching.batch import Batch
from data_modules.sft_data_module import SFTDataModule
from lit_sft.training.finite_guard import FiniteGuard
from lit_sft.training.module import LitCausalLM
from lit_sft.training.progress_lines import ProgressLines
from tests.conftest import alpaca_rows
from tests.training import make_module, make_trainer, train

MakeData = Callable[..., SFTDataModule]


def broken(module: LitCausalLM, kind: type[LitCausalLM]) -> LitCausalLM:
    module.__class__ = kind
    return module


def nan_in_step_two(module: LitCausalLM) -> LitCausalLM:
    """The module, whose training loss is nan in the second step."""
    objective = module.objective

    def breaking(backbone: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        total, nll = objective(backbone, batch)
        return (total * math.nan if module.trainer.global_step == 1 else total), nll

    module.objective = breaking
    return module


def test_a_nan_loss_stops_a_plain_trainer_without_any_callback(make_data: MakeData, tmp_path: Path) -> None:
    data = make_data(alpaca_rows(12), batch_size=4)
    module = nan_in_step_two(make_module())
    with pytest.raises(ValueError, match=r"the loss of step 2 .* is nan; expected a finite number\. Stopped"):
        train(data, tmp_path, module)
    assert all(bool(weight.isfinite().all()) for weight in module.backbone.parameters())


def test_an_infinite_gradient_stops_a_plain_trainer(make_data: MakeData, tmp_path: Path) -> None:
    class Overflows(LitCausalLM):
        def on_after_backward(self) -> None:
            next(p for p in self.parameters() if p.grad is not None).grad.fill_(math.inf)  # type: ignore[union-attr]

    with pytest.raises(ValueError, match="the gradient of step 1 has norm inf although the loss is finite"):
        train(make_data(alpaca_rows(8)), tmp_path, broken(make_module(), Overflows))


@pytest.mark.parametrize("own", [[], [RunHealth()], [FiniteGuard()]])
def test_every_fit_has_one_guard(make_data: MakeData, tmp_path: Path, own: list[Any]) -> None:
    trainer = make_trainer(tmp_path, callbacks=list(own), max_steps=1)
    module, data = make_module(), make_data(alpaca_rows(8))
    for _ in range(2):  # a second fit of the same trainer adds none
        trainer.fit(module, datamodule=data)
        guards = [callback for callback in trainer.callbacks if isinstance(callback, FiniteGuard)]  # type: ignore
        assert len(guards) == 1
        assert not own or guards == own


def test_the_guard_changes_no_weight(make_data: MakeData, tmp_path: Path) -> None:
    class Unguarded(LitCausalLM):
        def configure_callbacks(self) -> list[Any]:
            return []

    data = make_data(alpaca_rows(20), batch_size=4)
    runs = [train(data, tmp_path, broken(make_module(dropout=0.1), kind)) for kind in (LitCausalLM, Unguarded)]
    first, second = (run.backbone.state_dict() for run in runs)
    assert all(torch.equal(weight, second[name]) for name, weight in first.items())


def test_on_a_gpu_losses_are_read_every_few_steps_only(make_data: MakeData, tmp_path: Path) -> None:
    class Counts(FiniteGuard):
        steps: list[int] = []  # noqa: RUF012

        def check(self, trainer: Any, module: Any) -> None:
            self.steps.append(trainer.global_step)
            super().check(trainer, module)

    data = make_data(alpaca_rows(24), batch_size=4)
    train(data, tmp_path, callbacks=[Counts(check_every_step=False)], log_every_n_steps=4)
    assert sorted(set(Counts.steps)) == [4, 6]  # the last at the end


def test_no_checkpoint_of_weights_alone_is_written_after_a_bad_step(make_data: MakeData, tmp_path: Path) -> None:
    saver = ModelCheckpoint(
        tmp_path / "checkpoints", filename="{step}", every_n_train_steps=1, save_top_k=-1, save_weights_only=True
    )
    guard = FiniteGuard(check_every_step=False, every_n_steps=100)
    data = make_data(alpaca_rows(16), batch_size=4)
    with pytest.raises(ValueError, match="found after the step, so the weights in memory are already corrupted"):
        train(data, tmp_path, nan_in_step_two(make_module()), callbacks=[guard, saver], enable_checkpointing=True)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step=1.ckpt"]


def test_a_callback_may_save_at_the_end_of_a_batch_before_the_guard(make_data: MakeData, tmp_path: Path) -> None:
    class Saves(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            trainer.save_checkpoint(tmp_path / f"{trainer.global_step}.ckpt")

    train(make_data(alpaca_rows(12), batch_size=4), tmp_path, callbacks=[Saves()])
    assert (tmp_path / "3.ckpt").is_file()


def test_nan_validation_loss_gives_a_warning_and_training_continues(make_data: MakeData, tmp_path: Path) -> None:
    class NanInValidation(LitCausalLM):
        def on_validation_epoch_start(self) -> None:
            if self.trainer.global_step == 4:
                self.split_metrics["val"].segments.nats += math.nan  # type: ignore[operator]
                self.split_metrics["val"].loss.total += math.nan  # type: ignore[operator]

    data = make_data(alpaca_rows(40), val_fraction=0.2, batch_size=8)
    settings = {"max_steps": 6, "max_epochs": -1, "check_val_every_n_epoch": None, "val_check_interval": 2}
    with pytest.warns(
        UserWarning, match="validation loss at step 4 is nan .*although the training loss is still finite"
    ) as said:
        module = train(data, tmp_path, broken(make_module(), NanInValidation), **settings)
    assert len([warning for warning in said if "validation loss" in str(warning.message)]) == 1
    assert module.trainer.global_step == 6
    assert math.isfinite(module.metrics["val"]["loss"])


def test_validation_loss_without_supervised_tokens_is_reported_as_undefined(
    make_data: MakeData, write: Callable[..., str], tmp_path: Path
) -> None:
    val = [write("val.jsonl", alpaca_rows(4)), write("long.txt", "a document is not supervised " * 9)]
    data = make_data([*alpaca_rows(20)[4:]], val=val, eval_batch_size=1)
    with pytest.warns(UserWarning, match="undefined: the training mask supervises no token") as said:
        train(data, tmp_path, max_steps=1, limit_val_batches=1)  # the longest
    found = [str(warning.message) for warning in said if "validation loss" in str(warning.message)]
    assert [text.split(" is ")[0] for text in found] == [
        "the validation loss before training", "the validation loss at step 1",
    ]  # fmt: skip


def test_subclass_whose_step_returns_only_a_loss_is_guarded(make_data: MakeData, tmp_path: Path) -> None:
    class LossAlone(LitCausalLM):
        def training_step(self, micro_batches: Any, batch_idx: int) -> torch.Tensor:  # type: ignore[override]
            loss: torch.Tensor = super().training_step(micro_batches, batch_idx)["loss"]
            return loss * math.nan if batch_idx == 2 else loss

    said: list[str] = []
    settings = {"callbacks": [ProgressLines(said.append)], "enable_progress_bar": True}
    with pytest.raises(ValueError, match="the loss of step 3 "):
        train(make_data(alpaca_rows(12), batch_size=4), tmp_path, broken(make_module(), LossAlone), **settings)
    assert [line.split(",")[0] for line in said] == ["step 1 of 3"]
