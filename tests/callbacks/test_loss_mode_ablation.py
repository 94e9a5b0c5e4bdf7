from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from callbacks.loss_mode_ablation import LossModeAblation
from data_modules.rendering.masking import MASKS


class Reference(Callback):
    """Scores the validation split example by example, without batches, from the full logits."""

    def __init__(self) -> None:
        self.rows: list[dict[str, tuple[float, int]]] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        sums = {name: [0.0, 0] for name in MASKS}
        for example in trainer.datamodule.stores["val"]:  # type: ignore[attr-defined]
            ids = torch.tensor(example.input_ids.tolist())
            with torch.no_grad():
                scores = pl_module.backbone(input_ids=ids[None]).logits[0].double().log_softmax(-1)  # type: ignore[operator]
            for name, mask in MASKS.items():
                for t in range(1, len(ids)):
                    weight = mask.weights[example.kinds[t]]
                    sums[name][0] += -weight * float(scores[t - 1, ids[t]])
                    sums[name][1] += int(weight)
        self.rows.append({name: (nats / count, int(count)) for name, (nats, count) in sums.items()})


@pytest.mark.parametrize("mask", ["output_only", "whole_sequence"])
def test_rows_equal_an_independent_scoring_under_every_mask(fit: Callable[..., Any], mask: str) -> None:
    reference = Reference()
    rows = fit([LossModeAblation(), reference], data={"mask": mask}).rows("loss_modes.jsonl")
    assert [row["step"] for row in rows] == [0, 2, 4]
    for row, expected in zip(rows, reference.rows, strict=True):
        assert row["training_mask"] == mask
        assert row["masks"].keys() == MASKS.keys()
        for name, (nll, count) in expected.items():
            assert row["masks"][name]["nll"] == pytest.approx(nll, rel=1e-5)
            assert row["masks"][name]["perplexity"] == pytest.approx(math.exp(nll), rel=1e-5)
            assert row["masks"][name]["tokens"] == count


def test_one_chart_draws_all_masks_without_further_run_folders(fit: Callable[..., Any], tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.custom_scalar import layout_pb2

    fit([LossModeAblation()], logger=TensorBoardLogger(tmp_path, name="tb"))
    events = EventAccumulator(str(tmp_path / "tb" / "version_0")).Reload()
    layout = layout_pb2.Layout.FromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    assert list(layout.category[0].chart[0].multiline.tag) == [f"^val/nll/{name}$" for name in MASKS]
    assert {f"val/nll/{name}" for name in MASKS} <= set(events.Tags()["scalars"])
    assert [path.name for path in (tmp_path / "tb").iterdir()] == ["version_0"]


def test_table_marks_the_training_mask_and_warns_against_comparing_rows(
    fit: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit([LossModeAblation(max_columns=1)])
    printed = capsys.readouterr().out
    assert "output_only (trained)" in printed
    assert printed.count("(trained)") == 1
    assert "before" in printed
    assert "step 4" in printed
    assert "step 2" not in printed
    assert f"{run.rows('loss_modes.jsonl')[-1]['masks']['whole_sequence']['nll']:.4f}" in printed
    assert "compare values within a row, not between rows" in " ".join(printed.split())


def test_partial_sanity_check_is_not_recorded_as_a_validation(fit: Callable[..., Any]) -> None:
    run = fit([LossModeAblation()], num_sanity_val_steps=1, data={"eval_batch_size": 1})
    assert [row["step"] for row in run.rows("loss_modes.jsonl")] == [2, 4]


def test_a_training_mask_with_its_own_prompt_weight_has_a_row_of_its_own(
    fit: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit([LossModeAblation()], data={"mask": "whole_sequence", "prompt_weight": 0.5})
    row = run.rows("loss_modes.jsonl")[-1]
    assert row["training_loss"] == run.module.metrics["val"]["loss"]
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "(trained)" in line]
    assert "whole_sequence_prompt0.5" in line
    assert f"{row['training_loss']:.4f}" in line
