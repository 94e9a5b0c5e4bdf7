"""A text run that is killed ends with the same bits as one that is not."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lit_sft.runs.folders import find_resumable
from tests.conftest import MODELS, articles
from tests.test_faults import ENVIRONMENT
from tests.waiting import wait_until

NUM_KILLS, STEPS = 5, 72


def _config(write: Callable[..., str], tokenizer: str, folder: Path) -> str:
    """Several epochs; every step writes a checkpoint."""
    values: dict[str, Any] = {
        "data_module": "text",
        "seed_everything": 1,
        "model": {"backbone": {"config": MODELS["gpt2"], "tokenizer": tokenizer, "dropout": 0.1}},
        "data": {
            "train": write("texts.jsonl", [{"text": text} for text in articles(150)]), "blocks": "best_fit",
            "block_size": 64, "batch_size": 4, "cache_dir": str(folder / "encoded"),
        },
        "trainer": {
            "max_steps": STEPS, "accelerator": "cpu", "enable_progress_bar": False, "accumulate_grad_batches": 2,
            "num_sanity_val_steps": 0,
            "callbacks": [{"class_path": "callbacks.TrialRecord", "init_args": {"seconds": 0.0}}],
        },
        "run": {"root": str(folder / "runs"), "checkpoint_minutes": 1e-9},
    }  # fmt: skip
    return write("text.yaml", yaml.safe_dump(values))


def _fit(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "lit_sft", "fit", *arguments]


def _kill_after(step: int, arguments: list[str], folder: Path) -> int:
    """Start a run, and kill it once it has taken a step; returns the step of its newest checkpoint."""
    record = folder / "trial.json"

    def has_come_so_far() -> bool:
        return record.is_file() and json.loads(record.read_text())["step"] >= step

    with subprocess.Popen(_fit(*arguments), env=ENVIRONMENT, stdout=subprocess.DEVNULL) as process:
        wait_until(has_come_so_far, process, interval=0.001)
        assert process.poll() is None, "the run ended before it could be killed"
        process.send_signal(signal.SIGKILL)
    _, checkpoint, broken = find_resumable(str(folder))
    assert not broken
    return int(torch.load(checkpoint, weights_only=True)["global_step"])


@pytest.mark.slow
def test_text_run_killed_five_times_ends_with_the_bits_of_an_uninterrupted_run(
    write: Callable[..., str], tokenizer_folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = _config(write, tokenizer_folder, tmp_path)
    subprocess.run(_fit("--config", config, "--run.name", "straight"), check=True, capture_output=True, env=ENVIRONMENT)
    folder, draw, steps = tmp_path / "runs" / "killed" / "version_0", random.Random(1), list[int]()
    arguments = ["--config", config, "--run.name", "killed"]
    for number in range(NUM_KILLS):
        at = (number + 1) * STEPS // (NUM_KILLS + 1) + draw.randrange(-3, 3)
        steps.append(_kill_after(at, arguments, folder))
        arguments = ["--resume", str(folder)]
    subprocess.run(_fit(*arguments), check=True, capture_output=True, env=ENVIRONMENT)
    ends = [
        torch.load(tmp_path / "runs" / name / "version_0" / "checkpoints" / "last.ckpt", weights_only=True)
        for name in ("straight", "killed")
    ]
    with capsys.disabled():
        print(f"\nkilled after steps {', '.join(map(str, steps))} of {ends[0]['global_step']}")
    assert steps[0] > 0
    assert steps == sorted(set(steps)), "every run must get further than the one before"
    assert ends[0]["global_step"] == ends[1]["global_step"] == STEPS
    for part in ("state_dict", "optimizer_states"):
        assert _bits(ends[0][part]) == _bits(ends[1][part])


def _bits(value: Any) -> list[Any]:
    """Everything in a nested state, tensors as their bits."""
    if isinstance(value, dict):
        return [part for key in sorted(value, key=str) for part in _bits(value[key])]
    if isinstance(value, list):
        return [part for each in value for part in _bits(each)]
    return [value.numpy().tobytes()] if isinstance(value, torch.Tensor) else [value]
