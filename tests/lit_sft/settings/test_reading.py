"""Settings are read without a command line: nothing is printed, seeded, or taken from the process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from callbacks.run_health import RunHealth
from data_modules.errors import UserError
from lit_sft.settings.reading import as_options, parse_settings, read_settings

ROOT = Path(__file__).parents[3]
QUICKSTART = ROOT / "configs" / "quickstart.yaml"


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_settings_are_options_of_fit() -> None:
    settings = {"data.mask": "output_only", "data.prompt_weight": None, "data.train": ["a", "b"], "x": 0.1, "y": "1"}
    assert list(as_options(settings)) == [
        "--data.mask=output_only",
        "--data.prompt_weight=null",
        '--data.train=["a", "b"]',
        "--x=0.1",
        "--y=1",
    ]


def test_paths_and_values_that_begin_with_a_hyphen_can_be_changes(tmp_path: Path) -> None:
    read = read_settings(QUICKSTART, {"data.train": [tmp_path / "a.json"], "data.test": tmp_path, "run.name": "-x"})
    assert read.config.data.train == [str(tmp_path / "a.json")]
    assert (read.config.data.test, read.config.run.name) == (str(tmp_path), "-x")


@pytest.mark.parametrize("options", [["-c", str(QUICKSTART)], [f"-c{QUICKSTART}"], [f"--config={QUICKSTART}"]])
def test_every_spelling_of_config_gives_the_same_settings(options: list[str]) -> None:
    assert parse_settings(options).config.trainer.max_epochs == read_settings(QUICKSTART).config.trainer.max_epochs


def test_changes_win_over_files_and_later_files_over_earlier_ones(tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("data: {mask: output_only, batch_size: 3}\n")
    read = read_settings([QUICKSTART, overlay], {"data.batch_size": 5, "trainer.max_steps": 7})
    assert (read.config.data.mask, read.config.data.batch_size) == ("output_only", 5)
    assert (read.config.trainer.max_steps, read.config.trainer.max_epochs) == (7, -1)


def test_what_is_built_has_the_settings_that_were_read() -> None:
    read = read_settings(QUICKSTART, {"model.backbone.tuning": "lora", "model.optimizer.lr": 0.5})
    assert read.backbone().tuning == "lora"
    assert read.model().optimizer_settings.lr == 0.5
    assert read.data_module().max_length == read.config.model.backbone.config["n_positions"]


@pytest.mark.parametrize("callbacks", [None, {"class_path": "callbacks.RunHealth"}])
def test_trainer_takes_changes_and_writes_no_files(tmp_path: Path, callbacks: Any) -> None:
    trainer = read_settings(QUICKSTART, {"trainer.callbacks": callbacks}).trainer(
        default_root_dir=tmp_path, max_steps=2
    )
    assert trainer.max_steps == 2
    assert (trainer.checkpoint_callback, trainer.loggers) == (None, [])
    assert any(isinstance(callback, RunHealth) for callback in trainer.callbacks) is (callbacks is not None)  # type: ignore[attr-defined]


def test_trainer_with_other_callbacks_has_none_of_the_config() -> None:
    settings = read_settings(QUICKSTART)
    assert any(type(callback).__module__.startswith("callbacks.") for callback in callbacks_of(settings.trainer()))
    bare = settings.trainer(callbacks=[], enable_progress_bar=False)
    assert not any(type(callback).__module__.startswith("callbacks.") for callback in callbacks_of(bare))


def callbacks_of(trainer: Trainer) -> list[Callback]:
    return trainer.callbacks  # type: ignore[attr-defined, no-any-return]


def test_reading_leaves_the_process_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["program", "--own", "option"])
    state = torch.get_rng_state()
    read_settings(QUICKSTART).model()
    assert sys.argv == ["program", "--own", "option"]
    assert torch.equal(torch.get_rng_state(), state)


def test_two_readings_do_not_share_anything() -> None:
    first = read_settings(QUICKSTART, {"data.mask": "output_only"})
    second = parse_settings(["--config", str(QUICKSTART)], command="predict")
    assert first.config.data.mask == "output_only"
    assert second.config.data.mask != "output_only"


def test_a_wrong_setting_is_one_line_from_python_too() -> None:
    with pytest.raises(ValueError, match=r"did you mean .*data\.mask") as raised:
        read_settings(QUICKSTART, {"data.mas": "output_only"})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("seed", ["-5", "4294967296"])
def test_a_seed_out_of_range_is_refused_by_name(seed: str) -> None:
    with pytest.raises(UserError, match=f"--seed_everything {seed}: expected a whole number from 0 to 4294967295"):
        parse_settings(["--config", "configs/quickstart.yaml", "--seed_everything", seed])


@pytest.mark.parametrize("seed", ["true", "false", "0", "4294967295"])
def test_seeds_in_range_are_accepted(seed: str) -> None:
    parse_settings(["--config", "configs/quickstart.yaml", "--seed_everything", seed])
