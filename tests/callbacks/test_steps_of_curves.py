from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from callbacks import BenchmarkMonitor, LossModeAblation, PerplexityMonitor, RunHealth, SampleGeneration
from tests.conftest import alpaca_rows

SUITE = "template: chatml\nconversations: {rows: {data: PATH}}\n"


def steps_of_curves(folder: Path) -> dict[str, list[int]]:
    """The steps of every curve and text in the folder's event files."""
    steps: dict[str, list[int]] = {}
    for file in sorted(folder.glob("events*")):
        events = EventAccumulator(str(file)).Reload()
        for tag in events.Tags()["scalars"]:
            steps.setdefault(tag, []).extend(event.step for event in events.Scalars(tag))
        for tag in events.Tags()["tensors"]:
            steps.setdefault(tag, []).extend(event.step for event in events.Tensors(tag))
    return steps


@pytest.mark.parametrize("accumulate", [1, 2])
def test_all_values_of_a_validation_are_logged_at_one_step(
    fit: Callable[..., Any], write: Callable[..., str], tmp_path: Path, accumulate: int
) -> None:
    suite = write("suite.yaml", SUITE.replace("PATH", write("held_out.jsonl", alpaca_rows(4))))
    samples = SampleGeneration(prompts=["Hi"], num_held_out=1, max_new_tokens=2, print_table=False)
    watched = [samples, PerplexityMonitor(), LossModeAblation(), RunHealth(), BenchmarkMonitor(suite)]
    logger = TensorBoardLogger(tmp_path, name="", version="")
    settings = {"accumulate_grad_batches": accumulate, "val_check_interval": 2 * accumulate, "max_epochs": -1}
    fit(watched, logger=logger, **settings, check_val_every_n_epoch=None)
    steps = steps_of_curves(tmp_path)
    validated = {name: where for name, where in steps.items() if name.startswith(("val/", "benchmark/", "samples"))}
    assert {name.partition("/")[0] for name in validated} == {"val", "benchmark", "samples"}
    assert set(map(tuple, validated.values())) <= {(0, 2, 4), (2, 4)}  # metrics that need a training loss start later
    assert {name for name, where in validated.items() if where == [2, 4]} == {"val/gap"}
    assert steps["train/perplexity"] == [2, 4]


class SavesAfterValidation(Callback):
    """Saves a checkpoint at every validation."""

    def on_validation_end(self, trainer: Trainer, *_: Any) -> None:
        if not trainer.sanity_checking:
            trainer.save_checkpoint(Path(trainer.default_root_dir) / f"{trainer.global_step}.ckpt")


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
def test_a_run_resumed_after_a_validation_does_not_log_it_again(make_run: Callable[..., Any], tmp_path: Path) -> None:
    logs = tmp_path / "logs"

    def fit(**settings: Any) -> Any:
        logger = TensorBoardLogger(logs, name="", version="")
        lengths = {"max_steps": -1, "max_epochs": 2, "val_check_interval": 1.0}
        trainer, module, data = make_run([SavesAfterValidation()], logger=logger, **lengths)
        trainer.fit(module, datamodule=data, **settings)
        return trainer

    trainer = fit()
    epoch = int(trainer.num_training_batches)
    for file in logs.iterdir():
        file.unlink()
    fit(ckpt_path=Path(trainer.default_root_dir) / f"{epoch}.ckpt", weights_only=True)
    assert steps_of_curves(logs)["val/loss"] == [2 * epoch]
