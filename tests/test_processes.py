"""Two processes with half a batch each do what one does with the whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer

from tests.conftest import MODELS, alpaca_rows

ROOT = Path(__file__).parent.parent
TWO = {
    "ddp": {"strategy": "ddp", "devices": 2},
    "fsdp2": {
        "strategy": {
            "class_path": "lightning.pytorch.strategies.ModelParallelStrategy",
            "init_args": {"save_distributed_checkpoint": False},
        },
        "devices": 2,
    },
}


class Gradients(Callback):
    """Keeps the gradients of every step of the first process."""

    def __init__(self, path: str) -> None:
        self.path, self.steps = path, []  # type: ignore[var-annotated]

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        gradients = {name: p.grad for name, p in pl_module.named_parameters() if p.grad is not None}
        self.steps.append(
            {n: g.full_tensor() if hasattr(g, "full_tensor") else g.clone() for n, g in gradients.items()}
        )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            torch.save(self.steps, self.path)


def pair_rows(count: int) -> list[dict[str, str]]:
    """Preference pairs with answers of very different lengths."""
    rows = alpaca_rows(count)
    return [
        {"prompt": row["instruction"], "chosen": row["output"], "rejected": f"No {n}."} for n, row in enumerate(rows)
    ]


@pytest.mark.parametrize(
    ("strategy", "tuning", "objective"),
    [
        *((strategy, tuning, {}) for strategy in TWO for tuning in ("full", "lora")),
        ("ddp", "full", {"name": "dft", "kl_weight": 0.5}),
        ("fsdp2", "lora", {"name": "dft", "kl_weight": 0.5}),
        ("fsdp2", "full", {"label_smoothing": 0.1}),
        ("ddp", "full", {"name": "dpo"}),
        ("fsdp2", "lora", {"name": "dpo"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())) or "next_token",
)
def test_two_processes_equal_one_with_the_same_batch(
    write: Callable[..., str],
    tokenizer_folder: str,
    tmp_path: Path,
    strategy: str,
    tuning: str,
    objective: dict[str, Any],
) -> None:
    # 17 rows and 3 texts: an uneven last batch, and texts without a supervised token
    rows, is_dpo = (pair_rows, True) if objective.get("name") == "dpo" else (alpaca_rows, False)
    files = [write("rows.jsonl", rows(17)), write("texts.jsonl", [{"text": f"nothing {n}"} for n in range(3)])]
    if is_dpo:
        files = [write("rows.jsonl", rows(20))]
    config = {
        "seed_everything": 1,
        "model": {
            "backbone": {
                "config": MODELS["qwen2"], "tokenizer": tokenizer_folder, "tuning": tuning,
                "lora": {"rank": 2},
            },
            # with a base to keep to, the model must leave it
            "optimizer": {
                "lr": 1e-3 if "kl_weight" in objective or is_dpo else 1e-30, "schedule": "constant",
                "eps": 1e-3 if is_dpo else 1e-8,  # a gradient that is all rounding must not become a whole step
            },
            "objective": objective,
        },
        "data": {
            "train": files, "val": write("val.jsonl", rows(30)[20:27]), "template": "plain",
            "token_budget": 150, "test_fraction": 0.0,
        },
        "trainer": {
            "max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False, "accumulate_grad_batches": 2,
            "gradient_clip_val": None,
        },
    }  # fmt: skip

    def fit(name: str, batch_size: int, **trainer: Any) -> tuple[list[dict[str, torch.Tensor]], dict[str, Any]]:
        path = tmp_path / f"{name}.pt"
        callbacks = [
            {"class_path": "tests.test_processes.Gradients", "init_args": {"path": str(path)}},
            {"class_path": "callbacks.RunHealth"},
        ]
        whole = config | {"trainer": config["trainer"] | trainer | {"callbacks": callbacks}}  # type: ignore[operator]
        whole["run"] = {"root": str(tmp_path / "runs"), "name": name}
        whole["data"] = config["data"] | {"batch_size": batch_size}  # type: ignore[operator]
        command = [sys.executable, "-m", "lit_sft", "fit", "--config", write(f"{name}.yaml", yaml.safe_dump(whole))]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        assert done.returncode == 0, done.stderr[-3000:]
        metrics = json.loads((tmp_path / "runs" / name / "version_0" / "fit.json").read_text())
        assert len(list((tmp_path / "runs" / name).iterdir())) == 1
        return torch.load(path, weights_only=True), metrics

    (one, metrics), (two, metrics_of_two) = fit("one", 4), fit("two", 2, **TWO[strategy])
    assert len(one) == len(two) == 3
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=0, atol=1e-6)
    small = 1e-6 if is_dpo else 1e-9  # rewards are small differences of large sums
    for moment in ("before", "best"):
        assert metrics[moment] == pytest.approx(metrics_of_two[moment], rel=1e-6, abs=small)
        assert ("reward_margin" in metrics[moment]) == is_dpo


@pytest.mark.slow
def test_sharded_model_refuses_a_checkpoint_of_another_model(
    write: Callable[..., str], tokenizer_folder: str, tmp_path: Path
) -> None:
    """FSDP2's strategy silently loads only the weights that fit; `fit --resume` with the same model still works."""
    config: dict[str, Any] = {
        "seed_everything": 1,
        "model": {"backbone": {"config": MODELS["llama"], "tokenizer": tokenizer_folder}},
        "data": {"train": write("rows.jsonl", alpaca_rows(20)), "template": "plain"},
        "trainer": {"max_steps": 1, "accelerator": "cpu", "enable_progress_bar": False, **TWO["fsdp2"], "devices": 1},
        "run": {"root": str(tmp_path / "runs"), "name": "one"},
    }
    path = write("one.yaml", yaml.safe_dump(config))
    config["model"]["backbone"]["config"] = MODELS["llama"] | {"num_hidden_layers": 1}
    other = write("other.yaml", yaml.safe_dump(config))
    checkpoint = tmp_path / "runs" / "one" / "version_0" / "checkpoints" / "last.ckpt"

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "lit_sft", *arguments]
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )

    assert run("fit", "--config", path).returncode == 0
    resumed = run("fit", "--resume", str(checkpoint.parent.parent), "--trainer.max_steps", "2")
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    for command in ("fit", "validate"):
        refused = run(command, "--config", other, "--ckpt_path", str(checkpoint))
        assert refused.returncode == 2
        assert "Traceback" not in refused.stderr
        assert "last.ckpt: the weights belong to another model: 9 unknown" in refused.stderr
