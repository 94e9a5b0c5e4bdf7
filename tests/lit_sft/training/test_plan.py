from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, Trainer
from torch import nn

from callbacks import SampleGeneration
from data_modules.sft_data_module import SFTDataModule
from lit_sft.training.plan import PlanReport, RunPlan, plan_of, size_in_words
from tests.conftest import alpaca_rows
from tests.training import make_module, make_trainer

MakeData = Callable[..., SFTDataModule]


class Watch(Callback):
    """Records the plan before the first step, and after which steps a run validates."""

    def __init__(self) -> None:
        self.validated: list[int] = []

    def on_sanity_check_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.plan = plan_of(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, *_: Any) -> None:
        self.validated.append(trainer.global_step)


LENGTHS: dict[str, dict[str, Any]] = {
    "epochs": {"max_epochs": 3},
    "steps inside an epoch": {"max_epochs": -1, "max_steps": 9},
    "steps at the end of an epoch": {"max_epochs": -1, "max_steps": 14},
    "both, epochs first": {"max_epochs": 1, "max_steps": 9},
    "both, steps first": {"max_epochs": 5, "max_steps": 9},
    "every second epoch": {"max_epochs": 5, "check_val_every_n_epoch": 2},
    "every sixth epoch, stopped before": {"max_epochs": -1, "max_steps": 9, "check_val_every_n_epoch": 6},
    "a share of an epoch": {"max_epochs": 2, "val_check_interval": 0.5},
    "a share that does not divide an epoch": {"max_epochs": 2, "val_check_interval": 0.4},
    "a share less than a batch": {"max_epochs": 1, "val_check_interval": 0.01},
    "batches, inside epochs": {"max_epochs": 2, "val_check_interval": 3},
    "batches, over epochs": {"max_epochs": 3, "val_check_interval": 5, "check_val_every_n_epoch": None},
    "batches, in every second epoch": {"max_epochs": 3, "val_check_interval": 3, "check_val_every_n_epoch": 2},
    "accumulated": {"max_epochs": 2, "val_check_interval": 3, "accumulate_grad_batches": 2},
    "accumulated, over epochs": {
        "max_steps": 9, "max_epochs": -1, "val_check_interval": 4, "check_val_every_n_epoch": None,
        "accumulate_grad_batches": 3,
    },
    "part of an epoch": {"max_epochs": 2, "limit_train_batches": 4, "val_check_interval": 0.5},
}  # fmt: skip


@pytest.fixture
def data(make_data: MakeData) -> SFTDataModule:
    return make_data(alpaca_rows(40), val_fraction=0.25, batch_size=4)  # 7 batches


@pytest.mark.parametrize("what", LENGTHS)
def test_what_is_planned_is_what_happens(data: SFTDataModule, tmp_path: Path, what: str) -> None:
    watch = Watch()
    trainer = make_trainer(tmp_path, callbacks=[watch], **LENGTHS[what])
    trainer.fit(make_module(), datamodule=data)
    assert watch.plan.steps == trainer.global_step
    assert watch.plan.validations == watch.validated
    assert watch.validated[-1] == trainer.global_step  # the last step is always validated
    assert trainer.check_val_every_n_epoch == LENGTHS[what].get("check_val_every_n_epoch", 1)
    assert watch.plan.steps_per_epoch == math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)


def test_the_plan_counts_the_tokens_that_training_and_validation_read(data: SFTDataModule, tmp_path: Path) -> None:
    samples = SampleGeneration(["Hi"], num_held_out=2, max_new_tokens=5, temperatures=(0.0, 1.0), print_table=False)
    watch = Watch()
    trainer = make_trainer(tmp_path, callbacks=[samples, watch], max_epochs=2, limit_val_batches=1)
    trainer.fit(make_module(), datamodule=data)
    assert watch.plan.trained == pytest.approx(2 * data.stores["train"].lengths.sum())
    (batch,) = [micro_batches for _, micro_batches in zip(range(1), data.val_dataloader(), strict=False)]
    assert watch.plan.rows == sum(len(micro_batch.origins) for micro_batch in batch)
    assert watch.plan.tokens == sum(micro_batch.num_tokens for micro_batch in batch)
    assert watch.plan.generated == 2 * 5  # one batch, at two temperatures


def test_plan_is_printed_once_before_the_first_step(data: SFTDataModule, tmp_path: Path) -> None:
    said: list[str] = []
    settings = {"max_epochs": 3, "max_steps": 9, "accumulate_grad_batches": 2, "limit_val_batches": 1}
    trainer = make_trainer(tmp_path, callbacks=[PlanReport(said.append, "max_epochs of a.yaml")], **settings)
    module = make_module()
    trainer.fit(module, datamodule=data)
    rows, size = data.evaluated("val", 1)[0], sum(weight.numel() for weight in module.parameters())
    assert said == [
        f"size    {size:,} parameters, all of them trained",
        "plan    9 steps of 8 examples (4 x 2 accumulated x 1 device), 2.25 epochs of 4 steps, --trainer.max_epochs "
        "alone would give 12; max_epochs of a.yaml is not used",
        f"        4 validations of {rows:,} rows, before training and after steps 4, 8, 9",
    ]  # fmt: skip


def test_a_run_without_validation_rows_says_so(make_data: MakeData, tmp_path: Path) -> None:
    said: list[str] = []
    make_trainer(tmp_path, callbacks=[PlanReport(said.append)], max_steps=1).fit(
        make_module(), datamodule=make_data(alpaca_rows(8))
    )
    assert [line.split(" ", 1)[1].strip() for line in said[1:]] == [
        "1 step of 8 examples (8 x 1 accumulated x 1 device), 1 epoch of 1 step", "no validation",
    ]  # fmt: skip


def test_size_says_how_many_parameters_are_trained() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2, bias=False), nn.Linear(5, 2, bias=False))
    model[2].weight = model[1].weight  # tied: counted once
    assert size_in_words(model) == "30 parameters, all of them trained"
    model[0].requires_grad_(False)
    assert size_in_words(model) == "30 parameters, 10 of them (33.33%) trained"


def plan(**changes: Any) -> RunPlan:
    settings: dict[str, Any] = {
        "steps": 40, "steps_by": {}, "steps_per_epoch": 10, "batch_size": 8, "accumulate": 1, "devices": 1,
        "validations": [0, 10, 20, 30, 40], "rows": 20, "tokens": 1_000, "generated": 0, "trained": 40_000,
    }  # fmt: skip
    return RunPlan(**settings | changes)


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({}, None),
        (
            {"validations": list(range(41)), "tokens": 4_000},
            "longer than training: 41 validations (164,000 tokens read) for 40 steps (40,000 tokens read). Validate "
            "once an epoch: `--trainer.val_check_interval 1.0 --trainer.check_val_every_n_epoch 1`.",
        ),
        ({"tokens": 29_000}, "Validate every 4 epochs: `--trainer.val_check_interval 1.0 --trainer.check_val_every_n_"),
        ({"tokens": 90_000}, "Validate on fewer than 20 rows: a smaller `--data.val`, or"),
        ({"generated": 2_000}, "(5,000 tokens read, up to 10,000 steps of generation) for 40 steps"),
        ({"generated": 2_000}, "Generate less: lower `num_held_out` or `max_new_tokens` of SampleGeneration"),
        ({"validations": None, "tokens": 10**9}, None),
    ],
)
def test_run_that_validates_more_than_it_trains_gives_a_warning(changes: dict[str, Any], advice: str | None) -> None:
    warning = plan(**changes).warning()
    assert (warning is None) == (advice is None)
    assert advice is None or advice in str(warning)
