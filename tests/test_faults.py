"""Any fault ends a run with a message and leaves its last checkpoint intact."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_sft.runs.folders import find_resumable
from tests.conftest import MODELS, alpaca_rows
from tests.waiting import LONGEST, wait_until

NUM_KILLS = 20

# a different number of threads gives different sums; and a config names a class in this file
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent)}

# like `python -m lit_sft`, but checkpoints are written slowly, and a marker file exists while one is being written
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
def test_run_killed_twenty_times_ends_with_the_weights_of_an_uninterrupted_run(
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


@dataclass
class Victim:
    """A running training process to which a fault is applied.

    Attributes:
        folder: The run folder.
        records: Its training file.
        disk: The disk that the run writes to.
        process: The training process.
    """

    folder: Path
    records: Path
    disk: Path
    process: subprocess.Popen[bytes]


def sigterm(victim: Victim) -> None:
    victim.process.send_signal(signal.SIGTERM)


def ctrl_c(victim: Victim) -> None:
    victim.process.send_signal(signal.SIGINT)


def ctrl_c_twice(victim: Victim) -> None:
    """The second arrives before the checkpoint triggered by the first is written."""
    wait_until((victim.folder / "writing").exists, victim.process)
    ctrl_c(victim)
    time.sleep(0.05)
    ctrl_c(victim)


def full_disk(victim: Victim) -> None:
    with contextlib.suppress(OSError), (victim.disk / "filler").open("wb", buffering=0) as filler:
        while filler.write(bytes(4096)):
            pass


def read_only_disk(victim: Victim) -> None:
    # remounting fails while a file is being written
    remount = ["mount", "-o", "remount,ro", str(victim.disk)]
    wait_until(lambda: subprocess.run(remount, capture_output=True).returncode == 0, victim.process)


def records_vanish(victim: Victim) -> None:
    victim.records.unlink()


def records_change(victim: Victim) -> None:
    victim.records.write_text("".join(victim.records.read_text().splitlines(keepends=True)[::-1]))


def encoded_data_vanishes(victim: Victim) -> None:
    shutil.rmtree(victim.records.parent / "encoded")


def worker_dies(victim: Victim) -> None:
    children = Path(f"/proc/{victim.process.pid}/task/{victim.process.pid}/children").read_text().split()
    workers = [pid for pid in children if b"tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(int(workers[-1]), signal.SIGKILL)


def weights_turn_into_nan(victim: Victim) -> None:
    (victim.folder / "poison").touch()


class Poison(Callback):
    """Puts a NaN into the weights once a file says so."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if (poison := Path(trainer.default_root_dir) / "poison").exists():
            poison.unlink()
            next(pl_module.parameters()).data[:] = torch.nan


def loss_jumps(victim: Victim) -> None:
    """Raises the learning rate so that the loss spikes."""


FINISHED = r"model   .*next    python -m lit_sft test"
STOPPED = r"stopped after step \d+; saved in .*to continue: python -m lit_sft fit --resume"
KEPT = r"last\.ckpt is unchanged.*fit --resume"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="processes are looked up in /proc")
@pytest.mark.parametrize(
    ("fault", "overrides", "status", "message", "resumed"),
    [
        (sigterm, [], 143, STOPPED, FINISHED),
        (ctrl_c, [], 130, STOPPED, FINISHED),
        (ctrl_c_twice, [], -signal.SIGINT, "repeat to exit immediately", FINISHED),
        (full_disk, [], 2, f"No space left on device.*{KEPT}", "No space left on device"),
        (read_only_disk, [], 2, "Read-only file system.*fit --resume", "Read-only file system"),
        (records_vanish, [], 0, FINISHED, "no such file"),
        (records_change, [], 0, FINISHED, r"records of --data\.train have been changed"),
        (encoded_data_vanishes, [], 0, FINISHED, FINISHED),
        (worker_dies, ["--data.num_workers", "1"], 2, "DataLoader worker.*killed by signal", FINISHED),
        (
            weights_turn_into_nan,
            [],
            2,
            "expected a finite number.*likely causes.*The last checkpoint is kept",
            FINISHED,
        ),
        (loss_jumps, ["--model.optimizer.lr", "0.3"], 0, "a batch of step .* times the median", FINISHED),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_fault_ends_in_a_message_and_keeps_the_last_checkpoint(
    fault: Callable[[Victim], None],
    overrides: list[str],
    status: int,
    message: str,
    resumed: str | None,
    write: Callable[..., str],
    tokenizer_folder: str,
    tmp_path: Path,
    small_disk: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = settings(write, tokenizer_folder, small_disk)
    told["trainer"]["callbacks"] = [
        {"class_path": "callbacks.RunHealth", "init_args": {"loss_spike": 1.5}},
        {"class_path": "tests.test_faults.Poison"},
    ]
    arguments = ["fit", "--config", write("tiny.yaml", yaml.safe_dump(told)), "--run.name", "befallen", *overrides]
    folder, log = small_disk / "runs" / "befallen" / "version_0", tmp_path / "said.log"
    with start(arguments, log) as process:
        checkpoint = folder / "checkpoints" / "last.ckpt"
        wait_until(lambda: checkpoint.exists() or process.poll() is not None, process)
        fault(Victim(folder, Path(told["data"]["train"]), small_disk, process))
        assert process.wait(LONGEST) == status, log.read_text()
    said = log.read_text()
    assert re.search(message, said, re.DOTALL), said
    assert "Traceback" not in said
    _, checkpoint, broken = find_resumable(str(folder))
    assert not broken
    step = torch.load(checkpoint, weights_only=True)["global_step"]
    again = ""
    if resumed is not None:
        with start(["fit", "--resume", str(folder), "--run.allow_code", "tests.test_faults.Poison"], log) as process:
            process.wait(LONGEST)
        again = log.read_text()
        assert re.search(resumed, again, re.DOTALL), again
        assert "Traceback" not in again
    with capsys.disabled():
        print(f"\n| {fault.__name__} | {status} | {last_line(said)} | step {step} | {last_line(again)} |")


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A separate disk for disk faults, which can be filled and made read-only; mounting needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.node.callspec.params["fault"] not in (full_disk, read_only_disk):
        yield folder
        return
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(folder)], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"no disk can be mounted here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return (lines[-1] if lines else "").replace("|", " ")[:120]


def start(arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as said:
        return subprocess.Popen(
            [sys.executable, "-c", SLOW_WRITER, *arguments], stdout=said, stderr=said, env=ENVIRONMENT
        )


def settings(write: Callable[..., str], tokenizer: str, folder: Path) -> dict[str, Any]:
    """Long enough not to end before the last kill; a checkpoint every 0.4 seconds."""
    return {
        "seed_everything": 1,
        "model": {"backbone": {"config": MODELS["gpt2"], "tokenizer": tokenizer, "dropout": 0.1}},
        "data": {
            "train": write("rows.jsonl", alpaca_rows(400)), "template": "chatml", "batch_size": 4,
            "cache_dir": str(Path(write("empty", "")).parent / "encoded"),
        },
        "trainer": {
            "max_epochs": 6, "accelerator": "cpu", "enable_progress_bar": False, "accumulate_grad_batches": 2,
            "num_sanity_val_steps": 0,
        },
        "run": {"root": str(folder / "runs"), "checkpoint_minutes": 0.4 / 60},
    }  # fmt: skip


def run_to_the_end(*arguments: str) -> None:
    subprocess.run([sys.executable, "-c", SLOW_WRITER, *arguments], check=True, capture_output=True, env=ENVIRONMENT)


def kill(arguments: list[str], folder: Path, *, while_writing: bool, delay: float) -> str:
    """Start a run and kill it; return what it was doing."""
    writing, last = folder / "writing", folder / "checkpoints" / "last.ckpt"
    writing.unlink(missing_ok=True)
    before = last.stat().st_mtime_ns if last.exists() else None
    log = folder.parents[1] / "killed.log"
    log.parent.mkdir(exist_ok=True)
    with start(arguments, log) as process:
        # wait for a new checkpoint, so that each run makes progress
        wait_until(lambda: last.exists() and last.stat().st_mtime_ns != before, process)
        time.sleep(delay)
        while while_writing and not writing.exists() and process.poll() is None:
            time.sleep(0.002)
        assert process.poll() is None, "the run ended before it could be killed; make it longer"
        doing = "writing a checkpoint" if writing.exists() else "training"
        process.send_signal(signal.SIGKILL)
    return doing
