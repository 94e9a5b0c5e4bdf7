"""A run that is killed again and again, often while it writes a checkpoint, ends as if it never had been."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lit_sft.runs import find_resumable
from tests.conftest import MODELS, alpaca_rows

NUM_KILLS = 20

# sums in another number of threads are other sums
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}

# as `python -m lit_sft`, but that a checkpoint takes its time, and a file beside it says while it is being written
SLOW_WRITER = """
import io, sys, time
from pathlib import Path
import torch
from lit_sft.__main__ import main

write = torch.save

def write_slowly(checkpoint, file):
    buffer = io.BytesIO()
    write(checkpoint, buffer)
    writing = Path(file.name).parent.parent / "writing"
    writing.touch()
    for part in range(4):
        size = len(buffer.getvalue()) // 4 + 1
        file.write(buffer.getvalue()[part * size : (part + 1) * size])
        file.flush()
        time.sleep(0.05)
    writing.unlink()

torch.save = write_slowly
sys.exit(main())
"""


@pytest.mark.slow
def test_twenty_kills_end_in_the_weights_of_a_run_without_any(
    write: Callable[..., str], tokenizer_folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write("tiny.yaml", yaml.safe_dump(settings(write, tokenizer_folder, tmp_path)))
    run_to_the_end("fit", "--config", config, "--run.name", "straight")
    folder, draw, rows = tmp_path / "runs" / "killed" / "version_0", random.Random(0), []
    arguments = ["fit", "--config", config, "--run.name", "killed"]
    for number in range(NUM_KILLS):
        while_writing = number % 2 == 0
        killed_at = kill(arguments, folder, while_writing=while_writing, delay=draw.uniform(0.0, 0.6))
        partial = [path.name for path in folder.glob("checkpoints/*.partial")]
        _, checkpoint, broken = find_resumable(str(folder))
        step = torch.load(checkpoint, weights_only=True)["global_step"]
        rows.append(f"| {number + 1} | {killed_at} | {', '.join(partial) or '-'} | {checkpoint.name}, step {step} |")
        assert not broken
        arguments = ["fit", "--resume", str(folder)]
    run_to_the_end(*arguments)
    with capsys.disabled():
        print("\n| kill | while | half-written | newest whole checkpoint |\n|---:|---|---|---|", *rows, sep="\n")
    ends = [
        torch.load(tmp_path / "runs" / name / "version_0" / "checkpoints" / "last.ckpt", weights_only=True)
        for name in ("straight", "killed")
    ]
    assert ends[0]["global_step"] == ends[1]["global_step"]
    assert all(torch.equal(ends[0]["state_dict"][name], ends[1]["state_dict"][name]) for name in ends[0]["state_dict"])
    assert sum("writing" in row for row in rows) >= NUM_KILLS // 4


def settings(write: Callable[..., str], tokenizer: str, folder: Path) -> dict[str, Any]:
    """Long enough not to end before the last kill; a checkpoint every 0.4 seconds."""
    return {
        "seed_everything": 1,
        "model": {"backbone": {"config": MODELS["gpt2"], "tokenizer": tokenizer, "dropout": 0.1}},
        "data": {"train": write("rows.jsonl", alpaca_rows(400)), "template": "chatml", "batch_size": 4},
        "trainer": {
            "max_epochs": 6, "accelerator": "cpu", "enable_progress_bar": False, "accumulate_grad_batches": 2,
            "num_sanity_val_steps": 0,
        },
        "run": {"root": str(folder / "runs"), "checkpoint_minutes": 0.4 / 60},
    }  # fmt: skip


def run_to_the_end(*arguments: str) -> None:
    subprocess.run([sys.executable, "-c", SLOW_WRITER, *arguments], check=True, capture_output=True, env=ENVIRONMENT)


def kill(arguments: list[str], folder: Path, *, while_writing: bool, delay: float) -> str:
    """Start a run and kill it; says what it was doing."""
    writing, last = folder / "writing", folder / "checkpoints" / "last.ckpt"
    writing.unlink(missing_ok=True)
    before = last.stat().st_mtime_ns if last.exists() else None
    log = folder.parents[1] / "killed.log"
    log.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-c", SLOW_WRITER, *arguments]
    with log.open("w") as said, subprocess.Popen(command, stdout=said, stderr=said, env=ENVIRONMENT) as process:
        deadline = time.monotonic() + 120
        # a checkpoint of its own first, so that the chain of runs gets on
        while not last.exists() or last.stat().st_mtime_ns == before:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(delay)
        while while_writing and not writing.exists() and process.poll() is None:
            time.sleep(0.002)
        assert process.poll() is None, "the run ended before it could be killed; make it longer"
        doing = "writing a checkpoint" if writing.exists() else "training"
        process.send_signal(signal.SIGKILL)
    return doing
