"""Monitors the health of a run: gradient norm, loss scale, throughput, loss spikes and non-finite values."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from data_modules.batching.batch import Batch
from data_modules.errors import UserError, UserNotice
from data_modules.rendering.segments import SegmentKind
from data_modules.wording import listed
from lit_sft.models.adapters import causal_lm
from lit_sft.models.flops import model_flops, peak_flops
from lit_sft.training.finite_guard import MOST_ORIGINS, FiniteGuard, MicroBatch, scaler_of
from lit_sft.training.module import LitCausalLM

_FEWEST_LOSSES = 10
"""Spikes are detected only after this many losses."""


class RunHealth(FiniteGuard):
    """The guard of every run (FiniteGuard), plus curves and warnings.

    Logs `train/gradient_norm` (over all trained weights and the whole optimiser step, before clipping),
    `train/loss_scale` and `train/skipped_steps` (fp16 only), `train/tokens_per_second` (without padding) and
    `train/supervised_tokens_per_second`, over all devices and excluding validation time. If documents share their
    beginnings, also `train/shared_tokens`: the share of tokens that are not computed again. In half precision on a GPU
    of known peak rate (see `lit_sft.models.flops`) also `train/mfu`: the operations that training each document on its
    own would need, whatever the implementation, as a share of that rate; shared beginnings can raise it above 1.

    As a subclass it replaces the guard, so that nothing is checked or computed twice.

    Args:
        loss_spike: Warn and list the records if the loss of a batch exceeds this multiple of the median of the last
            hundred.
        every_n_steps: Optimiser steps between log entries. None: the trainer's `log_every_n_steps`.
        check_every_step: See FiniteGuard.

    Raises:
        UserError: If a setting is out of range, or a loss or gradient is not finite.
    """

    logs = (
        "train/gradient_norm",
        "train/tokens_per_second",
        "train/supervised_tokens_per_second",
        "train/shared_tokens",
        "train/mfu",
        "train/loss_scale",
        "train/skipped_steps",
    )

    def __init__(
        self,
        loss_spike: float | None = None,
        every_n_steps: int | None = None,
        check_every_step: bool | None = None,
    ) -> None:
        super().__init__(every_n_steps, check_every_step)
        if loss_spike is not None and loss_spike <= 1:
            raise UserError(f"RunHealth loss_spike {loss_spike}: expected a factor above 1, such as 3.")
        self.loss_spike = loss_spike
        self._throughput = _Throughput()
        self._peak: float | None = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: list[Batch], batch_idx: int
    ) -> None:
        """Start the clock."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self._throughput.start()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look up the peak rate of the device."""
        assert isinstance(pl_module, LitCausalLM)
        self._peak = _peak_of(trainer)
        if self._peak is not None:
            backbone = pl_module.backbone_settings
            has_reference = pl_module.objective_settings.needs_reference
            work = model_flops(causal_lm(pl_module.backbone).config, backbone.adapters, has_reference=has_reference)
            self._throughput.work = lambda lengths, targets: work.flops(lengths, targets, backbone.tuning)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Check and log the gradient norm."""
        norm = self.take_norm(trainer, pl_module, optimizer)
        pl_module.log("train/gradient_norm", norm)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: list[Batch], batch_idx: int
    ) -> None:
        """Count tokens, check the loss, and log the rates if due."""
        self._throughput.add(batch)
        is_due = self._is_reading_due(trainer)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if is_due:
            self._log_reading(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock during validation."""
        super().on_validation_start(trainer, pl_module)
        self._throughput.pause()

    def _judge(self, mean: float, seen: MicroBatch) -> None:
        if self.loss_spike is None or len(self._recent) < _FEWEST_LOSSES:
            return
        median = statistics.median(self._recent)
        if mean > self.loss_spike * median:
            warnings.warn(
                f"RunHealth: a batch of step {seen.step} has loss {mean:.3g}, {mean / median:.1f} times the "
                f"median {median:.3g} of earlier batches. Its records: {listed(seen.origins, MOST_ORIGINS)}.",
                UserNotice,
                stacklevel=2,
            )

    def _log_reading(self, trainer: Trainer, pl_module: LightningModule) -> None:
        tokens, supervised, flops, shared = self._throughput.finish(trainer)
        pl_module.log("train/tokens_per_second", tokens, prog_bar=True)
        pl_module.log("train/supervised_tokens_per_second", supervised)
        if shared:
            pl_module.log("train/shared_tokens", shared / tokens)
        if self._peak is not None:
            pl_module.log("train/mfu", flops / self._peak / trainer.world_size)
        if (scaler := scaler_of(trainer)) is not None:
            pl_module.log("train/loss_scale", float(scaler.get_scale()))
            pl_module.log("train/skipped_steps", float(self.skipped_steps))


class _Throughput:
    """Counts tokens and seconds since the last log entry, excluding validation time."""

    def __init__(self) -> None:
        self._started: float | None = None
        self._seconds = 0.0
        self._tokens: Tensor | None = None
        self._supervised = self._shared = 0
        self._flops = 0.0
        self.work: Callable[[Sequence[int], int], float] = lambda lengths, targets: 0.0
        """The floating-point operations that a batch needs, by the lengths of its documents and its targets."""

    def start(self) -> None:
        if self._started is None:
            self._started = time.perf_counter()

    def pause(self) -> None:
        if self._started is not None:
            self._seconds += time.perf_counter() - self._started
            self._started = None

    def add(self, micro_batches: list[Batch]) -> None:
        """Count a batch without synchronising with the device."""
        for micro_batch in micro_batches:
            tokens = (micro_batch.kinds != SegmentKind.PADDING).sum()
            self._tokens = tokens if self._tokens is None else self._tokens + tokens
            self._supervised += micro_batch.targets.numel()
            if micro_batch.tree is not None:
                self._shared += micro_batch.tree.places.numel() - micro_batch.tree.computed.numel()
            self._flops += self.work(micro_batch.lengths, micro_batch.targets.numel())

    def finish(self, trainer: Trainer) -> list[float]:
        """Tokens, supervised tokens, operations and shared tokens per second over all devices; resets the counts."""
        assert self._tokens is not None
        counts_on_host = [self._supervised, self._flops, self._shared]
        others = torch.tensor(counts_on_host, dtype=torch.float64, device=self._tokens.device)
        counts = torch.cat([self._tokens.double().view(1), others])
        total = trainer.strategy.reduce(counts, reduce_op="sum")
        assert isinstance(total, Tensor)
        self.pause()
        seconds = max(self._seconds, 1e-9)
        self._seconds, self._tokens, self._supervised, self._flops, self._shared = 0.0, None, 0, 0.0, 0
        self.start()
        return [count / seconds for count in total.tolist()]


def _peak_of(trainer: Trainer) -> float | None:
    """Peak rate of the GPU at half precision; None if it is not known, or training is not in half precision."""
    device = trainer.strategy.root_device
    if device.type != "cuda" or "16" not in str(trainer.precision):
        return None
    return peak_flops(torch.cuda.get_device_name(device))
