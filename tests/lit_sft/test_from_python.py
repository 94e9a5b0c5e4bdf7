"""Runs that a Python program makes with a plain Trainer, and Lightning's own debugging settings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelCheckpoint,
)

from data_modules.sft_data_module import SFTDataModule
from lit_sft.__main__ import main
from lit_sft.models.backbone import BackboneSettings
from lit_sft.models.generation import GenerationSettings
from lit_sft.models.objectives import ObjectiveSettings
from lit_sft.training.hyper_parameters import plain_settings, settings_from
from lit_sft.training.module import LitCausalLM
from lit_sft.training.optimization import OptimizerSettings
from tests.conftest import MODELS, alpaca_rows
from tests.training import make_module, make_trainer, train

MakeData = Callable[..., SFTDataModule]


@pytest.fixture
def data(make_data: MakeData) -> SFTDataModule:
    return make_data(alpaca_rows(40), val_fraction=0.2, test_fraction=0.2, batch_size=4, template="plain")


def saved_run(data: SFTDataModule, folder: Path, **module: Any) -> tuple[LitCausalLM, Path]:
    """A short run with a checkpoint, as a program makes it."""
    saver = ModelCheckpoint(folder / "checkpoints", filename="best", enable_version_counter=False)
    settings = {"max_steps": 2, "callbacks": [saver], "enable_checkpointing": True}
    return train(data, folder, make_module(**module), **settings), folder / "checkpoints" / "best.ckpt"


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_model_is_loaded_from_a_checkpoint_with_its_settings_and_weights(
    data: SFTDataModule, tokenizer: Any, tmp_path: Path, tuning: str
) -> None:
    seed_everything(5, verbose=False)
    module, path = saved_run(data, tmp_path, tuning=tuning, lr=7e-3)
    seed_everything(6, verbose=False)
    before = torch.random.get_rng_state()
    loaded = LitCausalLM.load_from_checkpoint(path, tokenizer=tokenizer)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert loaded.backbone_settings == module.backbone_settings
    assert loaded.optimizer_settings.lr == 7e-3
    weights = module.backbone.state_dict()
    assert loaded.backbone.state_dict().keys() == weights.keys()
    assert all(torch.equal(weight, weights[name]) for name, weight in loaded.backbone.state_dict().items())
    expected, found = (make_trainer(tmp_path).test(each, datamodule=data, verbose=False) for each in (module, loaded))
    assert found == expected


def test_a_loaded_model_can_be_trained_on(data: SFTDataModule, tokenizer: Any, tmp_path: Path) -> None:
    _, path = saved_run(data, tmp_path)
    loaded = LitCausalLM.load_from_checkpoint(str(path), tokenizer=tokenizer, optimizer=OptimizerSettings(lr=1e-2))
    assert train(data, tmp_path, loaded, max_steps=1).trainer.global_step == 1
    assert loaded.optimizer_settings.lr == 1e-2


def test_settings_of_a_checkpoint_are_plain_values_and_trust_no_code() -> None:
    trusting = BackboneSettings(pretrained=Path("base"), trust_remote_code=True)  # type: ignore[arg-type]
    plain = plain_settings(trusting, OptimizerSettings(), GenerationSettings(), ObjectiveSettings(name="dft"))
    assert json.loads(json.dumps(plain)) == plain
    read = settings_from({"hyper_parameters": plain}, Path("x.ckpt"))
    assert read["backbone"] == BackboneSettings(pretrained="base")  # without trust_remote_code
    assert read["objective"] == ObjectiveSettings(name="dft")
    del plain["objective"]  # written before there were objectives
    assert settings_from({"hyper_parameters": plain}, Path("x.ckpt"))["objective"] == ObjectiveSettings()


def test_a_checkpoint_without_settings_needs_them_given(data: SFTDataModule, tokenizer: Any, tmp_path: Path) -> None:
    module, path = saved_run(data, tmp_path)
    old = torch.load(path, weights_only=True)
    del old["hyper_parameters"], old["seed"]
    torch.save(old, tmp_path / "old.ckpt")
    with pytest.raises(ValueError, match=r"written by an older version, .* backbone=BackboneSettings"):
        LitCausalLM.load_from_checkpoint(tmp_path / "old.ckpt")
    loaded = LitCausalLM.load_from_checkpoint(
        tmp_path / "old.ckpt", tokenizer=tokenizer, backbone=module.backbone_settings
    )
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), module.parameters(), strict=True))
    with pytest.raises(ValueError, match="unknown argument strict"):
        LitCausalLM.load_from_checkpoint(path, strict=False)


@pytest.mark.parametrize("command", [["test"], ["validate"], ["predict"], ["fit", "--resume"], ["export"]])
def test_commands_on_a_run_made_from_python_say_what_to_do(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "epoch=0-step=2.ckpt").write_bytes(b"")
    assert main([*command, str(tmp_path)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert f"{tmp_path}: trained from Python (it has checkpoints but no config.yaml)" in said[-1]
    assert "trainer.test(LitCausalLM.load_from_checkpoint(CHECKPOINT), datamodule=data)" in said[-1]


def test_a_model_is_tested_and_answers_without_training(data: SFTDataModule, tmp_path: Path) -> None:
    trainer, module = make_trainer(tmp_path), make_module()
    (metrics,) = trainer.test(module, datamodule=data, verbose=False)
    assert metrics["test/loss"] > 1
    assert len([row for rows in trainer.predict(module, datamodule=data) or [] for row in rows]) == len(
        data.stores["test"]
    )


class Watch(Callback):
    """Records which examples are in each batch, and its epoch."""

    def __init__(self) -> None:
        self.batches: dict[int, list[tuple[str, ...]]] = {}

    def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        origins = tuple(origin for micro_batch in batch for origin in micro_batch.origins)
        self.batches.setdefault(trainer.current_epoch, []).append(origins)


def batches_of(data: SFTDataModule, folder: Path, **settings: Any) -> dict[int, list[tuple[str, ...]]]:
    watch = Watch()
    train(data, folder, callbacks=[watch], **settings)
    return watch.batches


def test_reloading_dataloaders_every_epoch_gives_the_same_batches(data: SFTDataModule, tmp_path: Path) -> None:
    settings = {"max_epochs": 3, "limit_val_batches": 0}
    usual = batches_of(data, tmp_path, **settings)
    assert batches_of(data, tmp_path, reload_dataloaders_every_n_epochs=1, **settings) == usual
    assert usual[0] != usual[1]


def test_overfit_batches_repeats_the_same_batches(data: SFTDataModule, tmp_path: Path) -> None:
    epochs = batches_of(data, tmp_path, max_epochs=3, overfit_batches=2)
    assert len(epochs[0]) == 2
    assert epochs[0] == epochs[1] == epochs[2]


@pytest.mark.parametrize(
    ("callback", "reason"),
    [
        (LearningRateFinder(), "LearningRateFinder changes the learning rate after config.yaml is written"),
        (
            BatchSizeFinder(),
            "BatchSizeFinder changes the batch size, and so the training itself; choose",
        ),
        (GradientAccumulationScheduler({0: 2}), "GradientAccumulationScheduler changes the number of batches per step"),
    ],
)
def test_callbacks_that_change_a_run_without_its_settings_are_refused(
    data: SFTDataModule, tmp_path: Path, callback: Callback, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        train(data, tmp_path, callbacks=[callback])


def test_training_on_no_batch_is_refused(data: SFTDataModule, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--trainer.limit_train_batches 0: leaves no batch to train on"):
        train(data, tmp_path, limit_train_batches=0)


def test_a_fast_dev_run_of_the_command_line_keeps_nothing_and_a_partial_test_says_so(
    write: Callable[..., str], tokenizer_folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {
        "model": {
            "backbone": {"config": MODELS["gpt2"], "tokenizer": tokenizer_folder},
            "generation": {"max_new_tokens": 2},
        },
        "data": {"train": write("rows.jsonl", alpaca_rows(40)), "template": "chatml", "test_fraction": 0.4},
        "trainer": {
            "max_steps": 1, "accelerator": "cpu", "enable_progress_bar": False, "log_every_n_steps": 1,
            "callbacks": ["callbacks.LossModeAblation"],
        },
        "run": {"root": str(tmp_path / "runs"), "name": "tiny"},
    }  # fmt: skip
    fit = ["fit", "--config", write("tiny.json", config)]
    assert main([*fit, "--trainer.fast_dev_run", "2"]) == 0
    assert "fast_dev_run: training and validation work (step 2); nothing was saved" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()
    finder = "--trainer.callbacks+=lightning.pytorch.callbacks.LearningRateFinder"
    assert main([*fit, finder]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("lit_sft fit: LearningRateFinder changes the learning")
    assert not list(tmp_path.glob("runs/*/*"))

    assert main(fit) == 0
    folder = tmp_path / "runs" / "tiny" / "version_0"
    assert main(["fit", "--resume", str(folder), "--trainer.fast_dev_run", "true"]) == 2
    assert "--trainer.fast_dev_run: only for new runs; leave out --resume." in capsys.readouterr().err
    assert main(["test", str(folder)]) == 0
    whole = json.loads((folder / "result.json").read_text())
    rows = whole["test_rows"]["of"]
    limits = ["--trainer.limit_test_batches", "1", "--data.eval_batch_size", "4"]
    assert main(["test", str(folder), *limits]) == 0
    assert f"warning only 4 of {rows} test rows were read" in capsys.readouterr().out
    part = json.loads((folder / "result.json").read_text())
    assert whole["test_rows"] == {"read": rows, "of": rows}
    assert part["test_rows"] == {"read": 4, "of": rows}
    assert part["test_fingerprint"] != whole["test_fingerprint"]
    assert json.loads((folder / "result_earlier_1.json").read_text())["test_rows"] == whole["test_rows"]
