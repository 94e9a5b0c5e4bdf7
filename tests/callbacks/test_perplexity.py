from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from callbacks.perplexity import PerplexityMonitor, Validation, best_of, num_overfitted, verdict


class Reference(Callback):
    """Scores every training batch from the full logits, with the weights just before its update."""

    def __init__(self) -> None:
        self.sums: list[tuple[int, float, float]] = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, micro_batches: Any, batch_idx: int
    ) -> None:  # type: ignore[override]
        (batch,) = micro_batches
        with torch.no_grad():
            scores = pl_module.backbone(input_ids=batch.input_ids).logits.double().log_softmax(-1)  # type: ignore[operator]
        nll = -scores[:, :-1].gather(-1, batch.input_ids[:, 1:, None])[..., 0]
        weights = batch.weights[:, 1:].double()
        self.sums.append((trainer.global_step, float((nll * weights).sum()), float(weights.sum())))

    def mean(self, first: int, end: int) -> float:
        chosen = [(nats, weight) for step, nats, weight in self.sums if first <= step < end]
        return sum(nats for nats, _ in chosen) / sum(weight for _, weight in chosen)


def row(step: int, train: float | None, val: float, *, is_best: bool = False) -> Validation:
    return Validation(step, 0, train, val, {}, is_best)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("mask", ["output_only", "whole_sequence"])
def test_training_perplexity_equals_an_independent_scoring_of_each_interval(
    fit: Callable[..., Any], mask: str, accumulate: int
) -> None:
    reference = Reference()
    settings = {
        "data": {"mask": mask, "packing": False},
        "accumulate_grad_batches": accumulate,
        "val_check_interval": 2 * accumulate,
    }
    run = fit([reference, PerplexityMonitor()], max_steps=4, max_epochs=5, **settings)
    rows = run.rows("perplexity.jsonl")
    steps = [r["step"] for r in rows]
    assert steps[:2] == [0, 2]
    assert rows[0]["train_perplexity"] is None
    for before, after in pairwise(rows):
        expected = reference.mean(before["step"], after["step"])
        assert after["train_nll"] == pytest.approx(expected, rel=1e-5)
        assert after["train_perplexity"] == pytest.approx(math.exp(expected), rel=1e-5)


def test_rows_record_gap_change_and_best(fit: Callable[..., Any]) -> None:
    run = fit([PerplexityMonitor(segments=("answer", "user"))])
    before, *_, last = run.rows("perplexity.jsonl")
    assert last["val_nll"] == run.module.metrics["val"]["loss"]
    assert last["gap"] == last["val_nll"] - last["train_nll"]
    assert list(last["perplexity"]) == ["answer", "user"]
    assert last["change"]["user"] == last["perplexity"]["user"] - before["perplexity"]["user"]
    assert last["is_best"]


def test_scalars_are_logged_and_checkpoint_metrics_left_alone(fit: Callable[..., Any], tmp_path: Any) -> None:
    run = fit([PerplexityMonitor()], logger=CSVLogger(tmp_path, name="csv"))
    run.trainer.logger.save()
    header = (tmp_path / "csv" / "version_0" / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"train/perplexity", "val/gap"} <= set(header)
    assert not {"train/perplexity", "val/gap"} & set(run.trainer.callback_metrics)


def test_history_and_an_unfinished_interval_survive_a_checkpoint(make_run: Callable[..., Any], tmp_path: Any) -> None:
    straight = PerplexityMonitor()
    saver = ModelCheckpoint(dirpath=tmp_path / "checkpoints", filename="{step}", every_n_train_steps=3, save_top_k=-1)
    settings = {"max_epochs": 1, "max_steps": -1, "val_check_interval": 4, "data": {"shuffle": False}}
    trainer, module, data = make_run([straight, saver], enable_checkpointing=True, **settings)
    trainer.fit(module, datamodule=data)
    state = torch.load(tmp_path / "checkpoints" / "step=3.ckpt", weights_only=True)["callbacks"]["PerplexityMonitor"]
    resumed = PerplexityMonitor()
    resumed.load_state_dict(state)
    assert resumed.history == straight.history[:1]
    assert resumed.state_dict() == state
    assert state["sums"][1] > 0


def test_an_unknown_segment_is_refused() -> None:
    with pytest.raises(ValueError, match="answers unknown; expected some of system, user"):
        PerplexityMonitor(segments=("answers",))


def test_overfitting_verdict_names_its_length_and_the_best_step() -> None:
    history = [
        row(0, None, 5.0, is_best=True),
        row(10, 4.0, 3.0, is_best=True),
        row(20, 3.0, 3.5),
        row(30, 2.0, 3.6),
    ]
    assert num_overfitted(history) == 2
    assert best_of(history) is history[1]
    assert "step 10, perplexity 20.09" in verdict(history)
    assert "Overfitting: the last 2 validations" in verdict(history)


def test_a_worse_validation_with_worse_training_is_not_called_overfitting() -> None:
    history = [row(10, 2.0, 3.0, is_best=True), row(20, 2.5, 3.5)]
    assert num_overfitted(history) == 0
    assert "Overfitting" not in verdict(history)


def test_the_history_is_printed_with_the_best_step_marked(
    fit: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    fit([PerplexityMonitor()])
    printed = capsys.readouterr().out
    assert printed.count("best") == 1
    assert "Best validation: step 4, perplexity" in printed
