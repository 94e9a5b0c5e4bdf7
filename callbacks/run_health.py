"""Whether a run is sound: gradient norm, loss scale, throughput, and a reasoned stop at a loss that is not finite."""

from __future__ import annotations

import math
import statistics
import time
import warnings
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from data_modules.batch import Batch
from data_modules.templates import SegmentKind
from lit_sft.generation import undisturbed
from lit_sft.loss import token_nll
from lit_sft.module import LitCausalLM

_MOST_ORIGINS = 16
_FEWEST_LOSSES = 10
"""A spike is judged against the median of at least so many losses."""


@dataclass(frozen=True, slots=True)
class _MicroBatch:
    """A batch whose loss may not have been read yet.

    Attributes:
        step: The optimiser step it is part of, counted from 1.
        batch_idx: Its number in the epoch, from 0.
        origins: Where its rows stand.
        loss: What went backward, ().
    """

    step: int
    batch_idx: int
    origins: tuple[str, ...]
    loss: Tensor


class RunHealth(Callback):
    """Watches the numbers of a run and stops it when they stop being numbers.

    Logs, on the way to the optimiser: `train/gradient_norm` (over all trained weights, before clipping; of the whole
    step under accumulation), `train/loss_scale` and `train/skipped_steps` (fp16 only), `train/tokens_per_second`
    (without padding) and `train/supervised_tokens_per_second`, over all devices and without the time of validation.

    A loss that is not finite ends the run with a ValueError that names the records, the figures and the likely causes.
    No checkpoint is written after it, so the last one is good.

    Args:
        loss_spike: Warn, with the records, when the loss of a batch is so many times the median of the last hundred.
        every_n_steps: Optimiser steps between readings. None: the trainer's `log_every_n_steps`.
        check_every_step: Look at each loss before going backward from it, so that the weights stay good. On a GPU the
            process waits for the device to do so; otherwise it looks at each reading, before each validation and before
            each checkpoint. None: on a CPU only.

    Raises:
        ValueError: If a setting is out of range, and as above.
    """

    def __init__(
        self,
        loss_spike: float | None = None,
        every_n_steps: int | None = None,
        check_every_step: bool | None = None,
    ) -> None:
        if loss_spike is not None and loss_spike <= 1:
            raise ValueError(f"RunHealth loss_spike {loss_spike}: expected a factor above 1, such as 3.")
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(f"RunHealth every_n_steps {every_n_steps}: expected at least 1.")
        self.loss_spike, self.every_n_steps, self.check_every_step = loss_spike, every_n_steps, check_every_step
        self.skipped_steps = 0
        self._pieces: list[Batch] = []
        self._losses: list[Tensor] = []
        self._unread: list[_MicroBatch] = []
        self._unread_means: list[Tensor] = []
        self._unread_norms: list[Tensor] = []
        self._recent: deque[float] = deque(maxlen=100)
        self._last_norm: float | None = None
        self._last_reading = 0
        self._throughput = _Throughput()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: list[Batch], batch_idx: int
    ) -> None:
        self._pieces, self._losses = batch, []
        self._throughput.start()

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Once for every piece; a batch is judged when all of its loss is known."""
        self._losses.append(loss.detach())
        if len(self._losses) < len(self._pieces):
            return
        origins, total = _origins(self._pieces), torch.stack(self._losses).sum()
        self._unread.append(_MicroBatch(trainer.global_step + 1, trainer.fit_loop.batch_idx, origins, total))
        if self._checks_now(pl_module):
            self._check_losses(trainer, pl_module, pieces=self._pieces)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Before clipping, and after fp16 gradients are unscaled."""
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = get_total_norm(gradients)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        self._unread_norms.append(norm)
        pl_module.log("train/gradient_norm", norm)
        if self._checks_now(pl_module):
            self._read_norms(trainer, pl_module, changed=False)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: list[Batch], batch_idx: int
    ) -> None:
        self._pieces = []
        self._unread_means.append(outputs["nats"] / outputs["weight"])
        self._throughput.add(batch)
        every: int = self.every_n_steps or trainer.log_every_n_steps  # type: ignore[attr-defined]
        is_due = trainer.global_step != self._last_reading and every and trainer.global_step % every == 0
        if is_due or self._checks_now(pl_module):
            self._read(trainer, pl_module)
        if is_due:
            self._last_reading = trainer.global_step
            self._log_reading(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._throughput.is_running:  # not in the check before training
            self._read(trainer, pl_module)
            self._throughput.pause()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Stop before anything is written, so that the checkpoint before stays."""
        self._read(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._read(trainer, pl_module)

    def _checks_now(self, module: LightningModule) -> bool:
        return module.device.type == "cpu" if self.check_every_step is None else self.check_every_step

    def _read(self, trainer: Trainer, module: LightningModule) -> None:
        """Look at all that was left on the device; waits for it."""
        self._check_losses(trainer, module)
        self._read_norms(trainer, module, changed=True)
        means = torch.stack(self._unread_means).tolist() if self._unread_means else []
        for mean, seen in zip(means, self._unread, strict=True):
            self._judge(mean, seen)
        self._unread_means, self._unread = [], []

    def _check_losses(self, trainer: Trainer, module: LightningModule, pieces: list[Batch] | None = None) -> None:
        """Stop if a loss is not finite.

        Args:
            trainer: Of the run.
            module: Trained.
            pieces: The last batch, if its step has not been taken; None if the weights have been changed since.
        """
        unread = self._unread if pieces is None else self._unread[-1:]
        finite = torch.stack([seen.loss for seen in unread]).isfinite().tolist() if unread else []
        is_sound = all(finite)
        if trainer.world_size > 1:  # all processes stop, or the others would wait for this one
            is_sound = trainer.strategy.reduce_boolean_decision(is_sound)
        if not is_sound:
            first = unread[finite.index(False)] if not all(finite) else None
            raise ValueError(self._message(trainer, module, first, pieces))

    def _read_norms(self, trainer: Trainer, module: LightningModule, *, changed: bool) -> None:
        norms = torch.stack(self._unread_norms).tolist() if self._unread_norms else []
        self._unread_norms = []
        has_scaler = _scaler(trainer) is not None
        for norm in norms:
            if math.isfinite(norm):
                self._last_norm = norm
            elif has_scaler:  # the scaler skips the step and lowers its scale
                self.skipped_steps += 1
            else:
                raise ValueError(self._gradient_message(trainer, module, norm, changed=changed))

    def _judge(self, mean: float, seen: _MicroBatch) -> None:
        if math.isnan(mean):  # no supervised token
            return
        if self.loss_spike is not None and len(self._recent) >= _FEWEST_LOSSES:
            median = statistics.median(self._recent)
            if mean > self.loss_spike * median:
                warnings.warn(
                    f"RunHealth: a batch of step {seen.step} has loss {mean:.3g}, {mean / median:.1f} times the "
                    f"median {median:.3g} of the batches before. Its records: {_listed(seen.origins)}.",
                    stacklevel=2,
                )
        self._recent.append(mean)

    def _log_reading(self, trainer: Trainer, pl_module: LightningModule) -> None:
        rates = self._throughput.finish(trainer)
        pl_module.log("train/tokens_per_second", rates[0], prog_bar=True)
        pl_module.log("train/supervised_tokens_per_second", rates[1])
        if (scaler := _scaler(trainer)) is not None:
            pl_module.log("train/loss_scale", float(scaler.get_scale()))
            pl_module.log("train/skipped_steps", float(self.skipped_steps))

    def _message(
        self, trainer: Trainer, module: LightningModule, first: _MicroBatch | None, pieces: list[Batch] | None
    ) -> str:
        if first is None:
            return "the loss is not finite on another process; its message names the records."
        value = float(first.loss)
        lines = [
            f"the loss of step {first.step} (epoch {trainer.current_epoch}, batch {first.batch_idx}) is {value}; "
            f"expected a finite number. {_state_of_weights(changed=pieces is None)}",
            f"  records: {_listed(first.origins)}",
            *(_culprits(trainer, module, pieces) if pieces is not None else []),
        ]
        return "\n".join([*lines, *self._circumstances(trainer, module)])

    def _gradient_message(self, trainer: Trainer, module: LightningModule, norm: float, *, changed: bool) -> str:
        step = f"by step {trainer.global_step}" if changed else f"of step {trainer.global_step + 1}"
        lines = [
            f"the gradient {step} has norm {norm} although the loss is finite; expected a finite number. "
            f"{_state_of_weights(changed=changed)}"
        ]
        if not changed and self._pieces:
            lines.append(f"  records of the step's last batch: {_listed(_origins(self._pieces))}")
        return "\n".join([*lines, *self._circumstances(trainer, module)])

    def _circumstances(self, trainer: Trainer, module: LightningModule) -> list[str]:
        recent = ", ".join(f"{loss:.4g}" for loss in list(self._recent)[-5:]) or "none yet"
        norm = "none yet" if self._last_norm is None else f"{self._last_norm:.4g}"
        return [
            f"  figures: losses before {recent}; gradient norm before {norm}; learning rate "
            f"{_learning_rate(trainer):.3g}; precision {trainer.precision}; "
            f"gradient clipping {trainer.gradient_clip_val}",
            "  likely causes:",
            *(f"    - {cause}" for cause in _causes(trainer, module)),
            f"  {_checkpoint(trainer)}",
        ]


class _Throughput:
    """Tokens and seconds since the last reading, the time of validation left out."""

    def __init__(self) -> None:
        self._started: float | None = None
        self._seconds = 0.0
        self._tokens: Tensor | None = None
        self._supervised = 0

    @property
    def is_running(self) -> bool:
        return self._started is not None

    def start(self) -> None:
        if self._started is None:
            self._started = time.perf_counter()

    def pause(self) -> None:
        if self._started is not None:
            self._seconds += time.perf_counter() - self._started
            self._started = None

    def add(self, pieces: list[Batch]) -> None:
        """Count a batch without waiting for the device."""
        for piece in pieces:
            tokens = (piece.kinds != SegmentKind.PADDING).sum()
            self._tokens = tokens if self._tokens is None else self._tokens + tokens
            self._supervised += piece.targets.numel()

    def finish(self, trainer: Trainer) -> tuple[float, float]:
        """Tokens and supervised tokens per second on all devices; starts anew."""
        assert self._tokens is not None
        counts = torch.stack([self._tokens, torch.full_like(self._tokens, self._supervised)]).double()
        total = trainer.strategy.reduce(counts, reduce_op="sum")
        assert isinstance(total, Tensor)
        tokens, supervised = total.tolist()
        self.pause()
        seconds = max(self._seconds, 1e-9)
        self._seconds, self._tokens, self._supervised = 0.0, None, 0
        self.start()
        return tokens / seconds, supervised / seconds


def _scaler(trainer: Trainer) -> Any:
    return getattr(trainer.precision_plugin, "scaler", None)


def _listed(origins: tuple[str, ...]) -> str:
    rest = len(origins) - _MOST_ORIGINS
    return ", ".join(origins[:_MOST_ORIGINS]) + (f" and {rest} more" if rest > 0 else "")


def _state_of_weights(*, changed: bool) -> str:
    if changed:
        return (
            "It was found after the step; the weights in memory are no good (RunHealth's check_every_step finds it "
            "before, for some speed)."
        )
    return "Stopped before this step changed the weights."


def _origins(pieces: list[Batch]) -> tuple[str, ...]:
    return tuple(origin for piece in pieces for origin in piece.origins)


def _culprits(trainer: Trainer, module: LightningModule, pieces: list[Batch]) -> list[str]:
    """Which documents are not finite by themselves, if not all: one more forward pass, for the last batch of a run."""
    assert isinstance(module, LitCausalLM)
    if trainer.world_size > 1:
        return []  # sharded weights could only be gathered by all processes, and the others have found nothing
    culprits: list[str] = []
    with torch.no_grad(), undisturbed(module.backbone), trainer.precision_plugin.forward_context():
        for piece in pieces:
            is_bad = ~token_nll(module.backbone, piece).isfinite()
            documents = sorted(set(piece.documents_at(piece.targets[is_bad]).tolist()))
            culprits += [piece.origins[index] for index in documents]
    if not culprits or len(culprits) == len(_origins(pieces)):
        return []
    return [f"  not finite by themselves: {_listed(tuple(culprits))}"]


def _learning_rate(trainer: Trainer) -> float:
    return float(trainer.optimizers[0].param_groups[0]["lr"])


def _causes(trainer: Trainer, module: LightningModule) -> list[str]:
    assert isinstance(module, LitCausalLM)
    causes = []
    if not all(bool(weight.isfinite().all()) for weight in module.parameters()):
        causes.append("the weights are not finite: damaged when loaded, or by an earlier step")
    causes.append("the learning rate: try a tenth of it (`--model.optimizer.lr`)")
    if not module.optimizer_settings.num_warmup_steps(1000):
        causes.append("no warm-up: `--model.optimizer.warmup_ratio 0.05`")
    if not trainer.gradient_clip_val:
        causes.append("no gradient clipping: `--trainer.gradient_clip_val 1.0`")
    if str(trainer.precision) == "16-true":
        causes.append(
            "fp16 weights: the squares that AdamW keeps of small gradients become 0 in fp16; `--trainer.precision "
            "16-mixed` keeps them in float32"
        )
    if str(trainer.precision).startswith("16"):
        causes.append("fp16, which ends at 65,504: `--trainer.precision bf16-mixed`")
    causes.append("one of the records above: read them, or train without them")
    return causes


def _checkpoint(trainer: Trainer) -> str:
    # those of the folder: Lightning's own callback is not alone in writing them
    folder = getattr(trainer.checkpoint_callback, "dirpath", None)
    found = sorted(Path(folder).glob("*.ckpt"), key=lambda path: path.stat().st_mtime) if folder else []
    if not found:
        return "No checkpoint had been written yet."
    return f"The last checkpoint is kept: {found[-1]}."
