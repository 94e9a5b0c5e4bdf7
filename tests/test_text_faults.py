"""A text run that is killed ends with the same bits as one that is not."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lit_sft.runs.folders import find_resumable
from tests.conftest import MODELS, articles
from tests.test_faults import kill, run_to_the_end

NUM_KILLS = 5


def _config(write: Callable[..., str], tokenizer: str, folder: Path) -> str:
    """Long enough not to end before the last kill; a checkpoint every 0.4 seconds."""
    values: dict[str, Any] = {
        "data_module": "text",
        "seed_everything": 1,
        "model": {"backbone": {"config": MODELS["gpt2"], "tokenizer": tokenizer, "dropout": 0.1}},
        "data": {
            "train": write("texts.jsonl", [{"text": text} for text in articles(400)]), "blocks": "best_fit",
            "block_size": 64, "batch_size": 4, "cache_dir": str(folder / "encoded"),
        },
        "trainer": {
            "max_epochs": 6, "accelerator": "cpu", "enable_progress_bar": False, "accumulate_grad_batches": 2,
            "num_sanity_val_steps": 0,
        },
        "run": {"root": str(folder / "runs"), "checkpoint_minutes": 0.4 / 60},
    }  # fmt: skip
    return write("text.yaml", yaml.safe_dump(values))


@pytest.mark.slow
def test_text_run_killed_five_times_ends_with_the_bits_of_an_uninterrupted_run(
    write: Callable[..., str], tokenizer_folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = _config(write, tokenizer_folder, tmp_path)
    run_to_the_end("fit", "--config", config, "--run.name", "straight")
    folder, draw, steps = tmp_path / "runs" / "killed" / "version_0", random.Random(1), []
    arguments = ["fit", "--config", config, "--run.name", "killed"]
    for _ in range(NUM_KILLS):
        kill(arguments, folder, while_writing=False, delay=draw.uniform(0.0, 0.6))
        _, checkpoint, broken = find_resumable(str(folder))
        assert not broken
        steps.append(torch.load(checkpoint, weights_only=True)["global_step"])
        arguments = ["fit", "--resume", str(folder)]
    run_to_the_end(*arguments)
    ends = [
        torch.load(tmp_path / "runs" / name / "version_0" / "checkpoints" / "last.ckpt", weights_only=True)
        for name in ("straight", "killed")
    ]
    with capsys.disabled():
        print(f"\nkilled after steps {', '.join(map(str, steps))} of {ends[0]['global_step']}")
    assert steps == sorted(set(steps)), "every run must get further than the one before"
    assert ends[0]["global_step"] == ends[1]["global_step"] > steps[-1]
    for part in ("state_dict", "optimizer_states"):
        assert _tensors(ends[0][part]) == _tensors(ends[1][part])


def _tensors(value: Any) -> list[Any]:
    """Everything in a nested state, tensors as their bits."""
    if isinstance(value, dict):
        return [part for key in sorted(value, key=str) for part in _tensors(value[key])]
    if isinstance(value, list):
        return [part for each in value for part in _tensors(each)]
    return [value.numpy().tobytes()] if isinstance(value, torch.Tensor) else [value]
