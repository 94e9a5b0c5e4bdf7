"""Shared by all contestants: each process runs one optimiser step on request and reports its cost.

A process gets the path of a JSON file of `Settings`. It waits for a line on standard input before each step, and writes
JSON lines to standard output: first its facts (`ready`), then one line per step. Library output goes to standard error.

Nothing here imports lit_sft: peers run in separate environments.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "transformers", "accelerate", "peft", "lightning", "trl", "liger-kernel", "flash-attn")
LORA_RANK = 16
"""Rank of all contestants' adapters: on every linear layer except the head, scaled by 2, without dropout."""


@dataclass(frozen=True)
class Settings:
    """Settings of one contestant's process.

    Attributes:
        variant: `default`, `grouped` or `flat`; for lit_sft, `flat`, `unshared` or `padded`.
        model: Folder with the weights.
        tokenizer: Its folder. Only its pad token is used, since rows are already encoded.
        rows: JSON file of rows with `input_ids` and `labels`, -100 where not supervised.
        store: The same rows as an example store of lit_sft.
        order: Which rows to train on, in order; the first batch is the warm-up.
        tuning: `full` or `lora`.
        precision: `bf16` or `float32`; ignored by `default`.
        slow_bf16: Whether bf16 is slower than float32, as on CPUs without bf16 instructions (about 50 times). A default
            of bf16 is then changed to float32, since a step would take minutes.
        batch_size: Rows per optimiser step.
        lr: Constant learning rate.
        threads: CPU threads.
        device: `cpu` or `cuda`.
        output: Folder for files that libraries insist on writing.
    """

    variant: str
    model: str
    tokenizer: str
    rows: str
    store: str
    order: list[int]
    tuning: str
    precision: str
    slow_bf16: bool
    batch_size: int
    lr: float
    threads: int
    device: str
    output: str

    @property
    def steps(self) -> int:
        """Optimiser steps, including the warm-up."""
        return len(self.order) // self.batch_size

    def examples(self) -> list[dict[str, list[int]]]:
        """The rows in order."""
        rows = json.loads(Path(self.rows).read_text(encoding="utf-8"))
        return [rows[index] for index in self.order]


class Turns:
    """The pipes to the process that hands out turns."""

    def __init__(self) -> None:
        self.settings = Settings(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
        self._pipe = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # keep library output out of the JSON lines
        torch.set_num_threads(self.settings.threads)
        torch.manual_seed(0)
        self._start = 0.0

    def ready(self, *, precision: str, settings: dict[str, Any]) -> None:
        """Report that training can start, and what will be measured."""
        versions = {name: found for name in PACKAGES if (found := _version(name))}
        self._write_line(precision=precision, settings=settings, versions=versions)

    def wait(self) -> None:
        """Wait for the next turn; exit quietly if there is none."""
        if not sys.stdin.readline():
            self._pipe.close()
            os._exit(0)  # in the middle of a trainer's callback; nothing needs saving
        self._start = time.perf_counter()

    def finish(self, *, loss: torch.Tensor, real: int, processed: int, supervised: int) -> None:
        """Report the cost of a step.

        Args:
            loss: Mean over supervised tokens, before the step.
            real: Tokens without padding.
            processed: Tokens that the model computes: with padding, and what rows share once or for each.
            supervised: Tokens in the loss.
        """
        value = loss.item()  # waits for the device
        if self.settings.device == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - self._start
        counts = {"real": real, "processed": processed, "supervised": supervised}
        self._write_line(seconds=seconds, loss=value, peak_bytes=self._peak_bytes(), **counts)

    def _peak_bytes(self) -> int:
        if self.settings.device == "cuda":
            return torch.cuda.max_memory_allocated()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def _write_line(self, **values: Any) -> None:
        print(json.dumps(values), file=self._pipe, flush=True)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
