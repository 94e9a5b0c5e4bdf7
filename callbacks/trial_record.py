"""Records what a comparison needs besides metrics: whether runs started from the same state, and what they cost."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from callbacks.output import file_in_run
from data_modules.batching.batch import Batch
from lit_sft.files import write_json
from lit_sft.memory import peak_memory
from lit_sft.models.loss import mean_of_step
from lit_sft.training.module import LitCausalLM


class TrialRecord(Callback):
    """Writes `trial.json` to the run folder during training, atomically.

    Its fields: `step` and `of` (optimiser steps done and planned), `train_loss` (of the last batch), `initial_weights`
    (a digest, see `weights_digest`), `initial_adapters` (the same for LoRA adapters), `order` (a digest of the records
    in each optimiser step), and, for training on this process: `examples`, `tokens`, `supervised_tokens`, `seconds`
    (in steps, without validation and waiting for data) and `peak_bytes`.

    Args:
        file: Name of the file in the run folder.
        seconds: Shortest time between writes.
    """

    def __init__(self, file: str = "trial.json", seconds: float = 1.0) -> None:
        self.file, self.seconds = file_in_run(self, file), seconds
        self.initial_weights = self.initial_adapters = ""
        self.order: list[str] = []
        self.counts: dict[str, float] = {"examples": 0, "tokens": 0, "supervised_tokens": 0, "seconds": 0.0}
        self._window: dict[str, float] = dict.fromkeys(self.counts, 0)
        self._origins: list[str] = []
        self._batch_began = self._written = 0.0
        self._loss: Tensor | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute the digests of the initial weights."""
        if not self.initial_weights:
            self.initial_weights = weights_digest(pl_module)
            self.initial_adapters = weights_digest(pl_module, adapters=True)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: list[Batch], batch_idx: int
    ) -> None:
        """Start the clock."""
        self._batch_began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: list[Batch], batch_idx: int
    ) -> None:
        """Count a batch, and write the file if due."""
        for micro_batch in batch:
            # a preference pair is one example of two documents
            origins = micro_batch.origins[:: 1 if micro_batch.preferences is None else 2]
            self._window["examples"] += len(origins)
            self._window["tokens"] += sum(micro_batch.lengths)
            self._window["supervised_tokens"] += micro_batch.targets.numel()
            self._origins += origins
        self._loss = mean_of_step(outputs)  # not read yet: that would synchronise with the device
        self._window["seconds"] += time.perf_counter() - self._batch_began
        if trainer.global_step > len(self.order):
            # added step by step: a resumed run repeats the step in which it stopped
            self.counts = {name: value + self._window[name] for name, value in self.counts.items()}
            self._window = dict.fromkeys(self.counts, 0)
            # which records and how often, regardless of order and micro-batch
            self.order.append(hashlib.sha256("\n".join(sorted(self._origins)).encode()).hexdigest()[:12])
            self._origins = []
        if time.monotonic() - self._written >= self.seconds:
            self._write(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the final record."""
        self._write(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """The digests and counts so far."""
        return {
            "initial_weights": self.initial_weights,
            "initial_adapters": self.initial_adapters,
            "order": self.order,
            "counts": self.counts,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the digests and counts."""
        self.initial_weights, self.initial_adapters = (
            state_dict["initial_weights"],
            state_dict.get("initial_adapters", ""),
        )
        self.order = list(state_dict["order"])
        self.counts = dict(state_dict["counts"])

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, LitCausalLM)
        self._written = time.monotonic()
        if not trainer.is_global_zero:
            return
        record = {
            "step": trainer.global_step,
            "of": pl_module.total_steps(),
            "train_loss": None if self._loss is None else float(self._loss),
            "initial_weights": self.initial_weights,
            "initial_adapters": self.initial_adapters,
            **self.counts,
            "peak_bytes": peak_bytes(),
            "order": self.order,
        }
        path = Path(trainer.default_root_dir) / self.file
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, record)


def weights_digest(module: nn.Module, *, adapters: bool = False) -> str:
    """A digest of a model's weights that does not depend on the precision of frozen weights.

    Weights are rounded to bfloat16, the precision in which a frozen base may be kept.

    Args:
        module: The model.
        adapters: Digest the adapters instead of all other weights, so that the base's digest does not depend on them.
    """
    digest = hashlib.sha256()
    names = {_plain_name(name): p for name, p in module.named_parameters() if _is_adapter(name) == adapters}
    for name, parameter in sorted(names.items()):
        whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
        weight = whole.detach().to("cpu", torch.bfloat16).contiguous().reshape(-1)
        digest.update(name.encode() + weight.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def peak_bytes() -> int | None:
    """Peak memory so far: of the GPU if one is used, otherwise of the process; None where it is not measured."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    return peak_memory()


def _is_adapter(name: str) -> bool:
    return "lora_" in name or ".modules_to_save." in name


def _plain_name(name: str) -> str:
    """The name of a weight without adapters. Source: peft's wrappers."""
    for part in ("base_model.model.", "base_layer.", "original_module."):
        name = name.replace(part, "")
    return name
