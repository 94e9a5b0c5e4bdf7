"""What every contestant's process has in common: it makes one optimiser step when told to, and says what that took.

The process is started with the path of a JSON file of `Settings`. On its standard output it writes JSON lines: first
what it is (`ready`), then one line a step. On its standard input it waits for a line before each step. Whatever the
libraries print goes to standard error.

Nothing here imports lit_sft: the processes of peers run in environments of their own.
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
"""Of everyone's adapters, on every linear layer but the head, scaled by 2, without dropout."""


@dataclass(frozen=True)
class Settings:
    """One contestant's part of the comparison.

    Attributes:
        variant: `default`, `grouped` or `flat`; of lit_sft `flat` or `padded`.
        model: Folder of weights.
        tokenizer: Folder of the tokenizer; only its pad token is used, the rows are encoded.
        rows: JSON file of rows with `input_ids` and `labels`, -100 where not supervised.
        store: The same rows as lit_sft keeps them.
        order: Which rows to train on, in which order; the first batch warms up.
        tuning: `full` or `lora`.
        precision: `bf16` or `float32`; a `default` keeps its own.
        slow_bf16: Whether bf16 is slower here than float32, as on CPUs without instructions for it, some 50 times. A
            default of bf16 is then changed to float32, or its step would take minutes.
        batch_size: Rows of an optimiser step.
        lr: Learning rate, constant.
        threads: Of the CPU.
        device: `cpu` or `cuda`.
        output: Folder for what libraries insist on writing.
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
        """Optimiser steps, the one that warms up included."""
        return len(self.order) // self.batch_size

    def examples(self) -> list[dict[str, list[int]]]:
        """The rows in order."""
        rows = json.loads(Path(self.rows).read_text(encoding="utf-8"))
        return [rows[index] for index in self.order]


class Turns:
    """The pipes to the process that tells whose turn it is."""

    def __init__(self) -> None:
        self.settings = Settings(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
        self._pipe = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what libraries print must not come between the lines
        torch.set_num_threads(self.settings.threads)
        torch.manual_seed(0)
        self._start = 0.0

    def ready(self, *, precision: str, settings: dict[str, Any]) -> None:
        """Say that training can start, and what is going to be measured."""
        versions = {name: found for name in PACKAGES if (found := _version(name))}
        self._say(precision=precision, settings=settings, versions=versions)

    def wait(self) -> None:
        """Wait for the turn; end quietly where there is none."""
        if not sys.stdin.readline():
            self._pipe.close()
            os._exit(0)  # inside a trainer's callback: there is nothing to save
        self._start = time.perf_counter()

    def finish(self, *, loss: torch.Tensor, real: int, processed: int, supervised: int) -> None:
        """Say what the step took.

        Args:
            loss: Mean over supervised tokens, before the step.
            real: Tokens that are not padding.
            processed: Tokens, padding included.
            supervised: Tokens that carry the loss.
        """
        value = loss.item()  # waits for the device
        if self.settings.device == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - self._start
        counts = {"real": real, "processed": processed, "supervised": supervised}
        self._say(seconds=seconds, loss=value, peak_bytes=self._peak_bytes(), **counts)

    def _peak_bytes(self) -> int:
        if self.settings.device == "cuda":
            return torch.cuda.max_memory_allocated()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def _say(self, **values: Any) -> None:
        print(json.dumps(values), file=self._pipe, flush=True)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
