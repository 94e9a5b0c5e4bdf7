from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data_modules.sft_data_module import SFTDataModule
from tests.conftest import alpaca_rows
from tests.training import make_module, make_trainer, train

MakeData = Callable[..., SFTDataModule]


def test_curves_start_before_training_and_are_named_split_quantity_part(make_data: MakeData, tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="", version="")
    data = make_data(alpaca_rows(40), val_fraction=0.2, batch_size=4)
    train(data, tmp_path, logger=logger, log_every_n_steps=1, max_epochs=2)
    events = EventAccumulator(str(tmp_path)).Reload()
    scalars = set(events.Tags()["scalars"])
    assert {
        "train/loss",
        "train/lr",
        "val/loss",
        "val/nll/answer",
        "val/nll/output_only",
        "val/perplexity/answer",
        "val/bits_per_byte/user",
    } <= scalars
    assert not any(name.startswith("val/perplexity/output_only") for name in scalars)  # the curve of the answers
    assert not any("tokens/" in name for name in scalars)
    steps = [event.step for event in events.Scalars("val/nll/answer")]
    assert steps[0] == 0
    assert len(steps) == 3


def test_a_run_that_ends_inside_an_epoch_is_validated_at_its_end(make_data: MakeData, tmp_path: Path) -> None:
    data = make_data(alpaca_rows(60), val_fraction=0.2, batch_size=2)
    module = train(data, tmp_path, make_module(lr=1e-2), max_steps=5)
    assert module.trainer.global_step == 5
    assert module.metrics["val"]["nll/answer"] < module.metrics_before["nll/answer"] - 1e-3


def test_steps_of_the_schedule_follow_epochs_steps_and_accumulation(make_data: MakeData, tmp_path: Path) -> None:
    data = make_data(alpaca_rows(20), batch_size=3)  # 7 batches, 4 windows of 2

    def total(**settings: object) -> int:
        module = make_module(schedule="linear")
        train(data, tmp_path, module, limit_val_batches=0, **settings)
        return module.total_steps()

    assert total(max_epochs=3, accumulate_grad_batches=2) == 12
    assert total(max_epochs=3, max_steps=5) == 5
    assert total(max_epochs=1, limit_train_batches=3, accumulate_grad_batches=2) == 2


def test_learning_rate_ends_at_its_floor(make_data: MakeData, tmp_path: Path) -> None:
    module = make_module(schedule="linear", min_lr_ratio=0.1, lr=1e-2)
    train(make_data(alpaca_rows(20), batch_size=3), tmp_path, module, accumulate_grad_batches=2, max_epochs=2)
    assert module.optimizers().param_groups[0]["lr"] == pytest.approx(1e-3)  # type: ignore[union-attr]


def test_loss_of_a_learnable_set_falls(make_data: MakeData, tmp_path: Path) -> None:
    data = make_data(alpaca_rows(60), val_fraction=0.2, batch_size=4)
    module = train(data, tmp_path, make_module(lr=1e-2), max_epochs=5)
    assert module.metrics["val"]["nll/answer"] < 0.7 * module.metrics_before["nll/answer"]


def test_lora_on_a_foreign_end_token_warns_and_names_the_embedding(make_data: MakeData, tmp_path: Path) -> None:
    data = make_data(alpaca_rows(8), template="chatml")
    with pytest.warns(UserWarning, match=r"answers end with '<\|im_end\|>', which is not .*modules_to_save '\[wte\]'"):
        make_trainer(tmp_path, max_steps=1).fit(make_module(tuning="lora"), datamodule=data)


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
def test_module_without_its_data_module_says_what_to_do(make_data: MakeData, tmp_path: Path) -> None:
    loader = make_data(alpaca_rows(8)).train_dataloader()
    with pytest.raises(ValueError, match=r"LitCausalLM needs a data module, such as SFTDataModule: call `trainer.fit"):
        make_trainer(tmp_path).fit(make_module(), train_dataloaders=loader)
