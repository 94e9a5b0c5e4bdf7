"""Five thousand steps: memory and speed stay as they were, and logs stay small."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from lightning.pytorch import Callback, Trainer

from lit_sft.__main__ import main
from tests.conftest import MODELS, alpaca_rows

STEPS, EVERY = 5000, 500


class Meter(Callback):
    """Records time and resident memory every five hundred steps."""

    rows: ClassVar[list[tuple[int, float, float]]] = []

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step % EVERY == 0:
            status = Path("/proc/self/status").read_text()
            resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
            self.rows.append((trainer.global_step, time.perf_counter(), resident / 1024))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read from /proc")
def test_five_thousand_steps_keep_memory_and_logs_flat(
    write: Callable[..., str], tokenizer_folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Meter.rows = []
    config = {
        "model": {
            "backbone": {"config": MODELS["gpt2"], "tokenizer": tokenizer_folder},
            "generation": {"max_new_tokens": 4},
        },
        "data": {"train": write("rows.jsonl", alpaca_rows(300)), "template": "chatml", "batch_size": 4},
        "trainer": {
            "max_steps": STEPS, "max_epochs": -1, "accelerator": "cpu", "enable_progress_bar": False,
            "check_val_every_n_epoch": None, "val_check_interval": 250,
            "callbacks": [
                {"class_path": "callbacks.RunHealth"},
                {"class_path": "callbacks.LossModeAblation"},
                {"class_path": "callbacks.SampleGeneration", "init_args": {"num_held_out": 1, "max_new_tokens": 4}},
                {"class_path": "tests.test_long_run.Meter"},
            ],
        },
        "run": {"root": str(tmp_path / "runs"), "name": "long", "checkpoint_minutes": 0.25},
    }  # fmt: skip
    assert main(["fit", "--config", write("long.yaml", yaml.safe_dump(config))]) == 0
    sizes = {f.name: f.stat().st_size / 2**20 for f in (tmp_path / "runs").rglob("*") if f.is_file()}
    with capsys.disabled():
        print("\n| step | steps/s | resident memory |\n|---:|---:|---:|")
        for (_, before, _), (step, now, resident) in pairwise(Meter.rows):
            print(f"| {step} | {EVERY / (now - before):.0f} | {resident:.0f} MB |")
        print(", ".join(f"{name} {size:.2f} MB" for name, size in sorted(sizes.items()) if size > 0.05))
    memory = [resident for _, _, resident in Meter.rows]
    assert len(memory) == STEPS // EVERY
    assert memory[-1] - memory[2] < 30
    assert sum(size for name, size in sizes.items() if not name.endswith((".ckpt", ".safetensors"))) < 10
