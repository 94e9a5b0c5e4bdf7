"""Gradients of two processes are averaged once per optimiser step, however many forward passes it has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from tests.conftest import MODELS, alpaca_rows

ROOT = Path(__file__).parent.parent


class Exchanges(Callback):
    """Counts the forward passes and the exchanges of gradients of each optimiser step of the first process."""

    def __init__(self, path: str) -> None:
        self.path, self.steps, self.now = path, [], {"passes": 0, "exchanges": 0}  # type: ignore[var-annotated]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        def counted(state, bucket):  # type: ignore[no-untyped-def]  # torch compares annotations with its types
            self.now["exchanges"] += 1
            return allreduce_hook(None, bucket)

        trainer.strategy.model.register_comm_hook(None, counted)  # type: ignore[operator,union-attr]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.now["passes"] += len(batch)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch:
            self.steps.append(dict(self.now))
            self.now.update(passes=0, exchanges=0)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            Path(self.path).write_text(json.dumps(self.steps), encoding="utf-8")


def test_ddp_exchanges_gradients_once_per_step(
    write: Callable[..., str], tokenizer_folder: str, tmp_path: Path
) -> None:
    counts = tmp_path / "counts.json"
    config = {
        "model": {"backbone": {"config": MODELS["gpt2"], "tokenizer": tokenizer_folder}},
        "data": {
            "train": write("rows.jsonl", alpaca_rows(24)), "template": "plain", "val_fraction": 0.0,
            "test_fraction": 0.0, "batch_size": 6, "token_budget": 100,
        },
        "trainer": {
            "max_epochs": 1, "accelerator": "cpu", "strategy": "ddp", "devices": 2, "accumulate_grad_batches": 2,
            "enable_progress_bar": False,
            "callbacks": [
                {"class_path": "tests.test_synchronisation.Exchanges", "init_args": {"path": str(counts)}},
            ],
        },
        "run": {"root": str(tmp_path / "runs")},
    }  # fmt: skip
    command = [sys.executable, "-m", "lit_sft", "fit", "--config", write("config.yaml", yaml.safe_dump(config))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    steps = json.loads(counts.read_text(encoding="utf-8"))
    assert steps
    assert min(step["passes"] for step in steps) > 3
    assert [step["exchanges"] for step in steps] == [1] * len(steps)  # the whole model fits into one bucket
