"""Stops a run at a non-finite loss or gradient, and names the records, metrics and settings to check."""

from __future__ import annotations

import math
import warnings
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from data_modules.batching.batch import Batch
from data_modules.errors import UserError, UserNotice
from data_modules.wording import listed
from lit_sft.models.generation import undisturbed
from lit_sft.models.loss import mean_of_step, token_nll

if TYPE_CHECKING:
    from lit_sft.training.module import LitCausalLM

MOST_ORIGINS = 16
_USUAL_INTERVAL = 50
"""Optimiser steps between checks if the trainer logs nothing."""


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """A batch whose loss may still be on the device.

    Attributes:
        step: Its optimiser step, counted from 1.
        batch_idx: Its index in the epoch, from 0.
        origins: Origins of its records.
        loss: The loss of the backward pass, ().
    """

    step: int
    batch_idx: int
    origins: tuple[str, ...]
    loss: Tensor


class FiniteGuard(Callback):
    """Stops training at a non-finite loss or gradient; warns about a non-finite validation loss.

    LitCausalLM adds one to every fit without one. No checkpoint is written after a bad step, so the last one is good.

    Args:
        every_n_steps: Optimiser steps between checks on a GPU. None: the trainer's `log_every_n_steps`.
        check_every_step: Whether to check each loss before its backward pass, so that the weights stay good. On a GPU
            this waits for the device in every step; otherwise losses are checked together, every few steps, before
            each validation and before each checkpoint. None: on a CPU only.

    Raises:
        UserError: If a setting is out of range; during training, at a non-finite loss or gradient.
    """

    def __init__(self, every_n_steps: int | None = None, check_every_step: bool | None = None) -> None:
        name = type(self).__name__
        if every_n_steps is not None and every_n_steps < 1:
            raise UserError(f"{name} every_n_steps {every_n_steps}: expected at least 1.")
        self.every_n_steps, self.check_every_step = every_n_steps, check_every_step
        self.skipped_steps = 0
        """Steps that the fp16 scaler skipped because their gradient overflowed."""
        self._micro_batches: list[Batch] = []
        self._losses: list[Tensor] = []
        self._unread: list[MicroBatch] = []
        self._unread_means: list[Tensor] = []
        self._unread_norms: list[Tensor] = []
        self._recent: deque[float] = deque(maxlen=100)
        self._last_norm: float | None = None
        self._last_reading = 0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: list[Batch], batch_idx: int
    ) -> None:
        """Collect the losses of a new batch."""
        self._micro_batches, self._losses = batch, []

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Collect the loss of a micro-batch; check the batch after its last one."""
        self._losses.append(loss.detach())
        if len(self._losses) < len(self._micro_batches):
            return
        origins, total = _origins(self._micro_batches), torch.stack(self._losses).sum()
        self._unread.append(MicroBatch(trainer.global_step + 1, trainer.fit_loop.batch_idx, origins, total))
        if self._checks_now(pl_module):
            self._check_losses(trainer, pl_module, micro_batches=self._micro_batches)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Check the gradient before clipping, after fp16 gradients are unscaled."""
        self.take_norm(trainer, pl_module, optimizer)

    def take_norm(self, trainer: Trainer, module: LightningModule, optimizer: Optimizer) -> Tensor:
        """The norm of all gradients, (); checked now or with the next group of losses.

        Raises:
            UserError: If it is checked now and is not finite.
        """
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = get_total_norm(gradients)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        self._unread_norms.append(norm)
        if self._checks_now(module):
            self._read_norms(trainer, module, changed=False)
        return norm

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: list[Batch], batch_idx: int
    ) -> None:
        """Check the losses and norms collected so far, if it is time."""
        self._micro_batches = []
        self._unread_means.append(mean_of_step(outputs))
        if self._is_reading_due(trainer):
            self._last_reading = trainer.global_step
            self.check(trainer, pl_module)
        elif self._checks_now(pl_module):
            self.check(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check everything before a validation."""
        if trainer.state.fn == "fit":
            self.check(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn if the validation loss is not finite."""
        metrics = cast("LitCausalLM", pl_module).metrics["val"]
        if not math.isfinite(metrics["loss"]):
            warnings.warn(_validation_message(metrics), UserNotice, stacklevel=2)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the last steps."""
        self.check(trainer, pl_module)

    def check(self, trainer: Trainer, module: LightningModule) -> None:
        """Check all losses and gradient norms that are still on the device; waits for it.

        Raises:
            UserError: If one is not finite.
        """
        self._check_losses(trainer, module)
        self._read_norms(trainer, module, changed=True)
        means = torch.stack(self._unread_means).tolist() if self._unread_means else []
        # a callback that saves at the end of a batch may run before the guard has noted the mean of that batch
        read, self._unread = self._unread[: len(means)], self._unread[len(means) :]
        self._unread_means = []
        for mean, seen in zip(means, read, strict=True):
            if not math.isnan(mean):  # NaN: no supervised token
                self._judge(mean, seen)
                self._recent.append(mean)

    def _judge(self, mean: float, seen: MicroBatch) -> None:
        """Subclasses judge the mean loss of a batch here; `_recent` holds the losses before it."""

    def _is_reading_due(self, trainer: Trainer) -> bool:
        every: int = self.every_n_steps or trainer.log_every_n_steps or _USUAL_INTERVAL  # type: ignore[attr-defined]
        return trainer.global_step != self._last_reading and trainer.global_step % every == 0

    def _checks_now(self, module: LightningModule) -> bool:
        return module.device.type == "cpu" if self.check_every_step is None else self.check_every_step

    def _check_losses(
        self, trainer: Trainer, module: LightningModule, micro_batches: list[Batch] | None = None
    ) -> None:
        """Stop if a loss is not finite.

        Args:
            trainer: The run's trainer.
            module: The module being trained.
            micro_batches: The last batch, if its step has not been taken. None: the weights have changed since.
        """
        unread = self._unread if micro_batches is None else self._unread[-1:]
        finite = torch.stack([seen.loss for seen in unread]).isfinite().tolist() if unread else []
        is_sound = all(finite)
        if trainer.world_size > 1:  # all processes must stop, or the others would wait for this one
            is_sound = trainer.strategy.reduce_boolean_decision(is_sound)
        if not is_sound:
            first = unread[finite.index(False)] if not all(finite) else None
            raise UserError(self._message(trainer, module, first, micro_batches))

    def _read_norms(self, trainer: Trainer, module: LightningModule, *, changed: bool) -> None:
        norms = torch.stack(self._unread_norms).tolist() if self._unread_norms else []
        self._unread_norms = []
        has_scaler = scaler_of(trainer) is not None
        for norm in norms:
            if math.isfinite(norm):
                self._last_norm = norm
            elif has_scaler:  # the scaler skips the step and lowers its scale
                self.skipped_steps += 1
            else:
                raise UserError(self._gradient_message(trainer, module, norm, changed=changed))

    def _message(
        self, trainer: Trainer, module: LightningModule, first: MicroBatch | None, micro_batches: list[Batch] | None
    ) -> str:
        if first is None:
            return "the loss is not finite on another process; its message names the records."
        value = float(first.loss)
        lines = [
            f"the loss of step {first.step} (epoch {trainer.current_epoch}, batch {first.batch_idx}) is {value}; "
            f"expected a finite number. {_state_of_weights(changed=micro_batches is None)}",
            f"  records: {listed(first.origins, MOST_ORIGINS)}",
            *(_culprits(trainer, module, micro_batches) if micro_batches is not None else []),
        ]
        return "\n".join([*lines, *self._circumstances(trainer, module)])

    def _gradient_message(self, trainer: Trainer, module: LightningModule, norm: float, *, changed: bool) -> str:
        step = f"by step {trainer.global_step}" if changed else f"of step {trainer.global_step + 1}"
        lines = [
            f"the gradient {step} has norm {norm} although the loss is finite; expected a finite number. "
            f"{_state_of_weights(changed=changed)}"
        ]
        if not changed and self._micro_batches:
            lines.append(f"  records of the step's last batch: {listed(_origins(self._micro_batches), MOST_ORIGINS)}")
        return "\n".join([*lines, *self._circumstances(trainer, module)])

    def _circumstances(self, trainer: Trainer, module: LightningModule) -> list[str]:
        recent = ", ".join(f"{loss:.4g}" for loss in list(self._recent)[-5:]) or "none yet"
        norm = "none yet" if self._last_norm is None else f"{self._last_norm:.4g}"
        return [
            f"  metrics: losses before {recent}; gradient norm before {norm}; learning rate "
            f"{_learning_rate(trainer):.3g}; precision {trainer.precision}; "
            f"gradient clipping {trainer.gradient_clip_val}",
            "  likely causes:",
            *(f"    - {cause}" for cause in _causes(trainer, module)),
            f"  {_checkpoint(trainer)}",
        ]


def scaler_of(trainer: Trainer) -> Any:
    """fp16's gradient scaler, if there is one."""
    return getattr(trainer.precision_plugin, "scaler", None)


def _validation_message(metrics: dict[str, float]) -> str:
    """The warning about a non-finite validation loss."""
    loss, step = metrics["loss"], int(metrics["step"])
    place = f"at step {step}" if step else "before training"
    bad = [
        name.removeprefix("nll/") for name, value in metrics.items() if name[:4] == "nll/" and not math.isfinite(value)
    ]
    if not bad:
        return (
            f"the validation loss {place} is undefined: the training mask supervises no token in the validation "
            "batches. Use other validation rows, or raise `--trainer.limit_val_batches`."
        )
    return (
        f"the validation loss {place} is {loss} (not finite: {', '.join(bad)}), although the training loss is still "
        "finite. Training continues, but these weights cannot become the best checkpoint. Look for extreme "
        "validation records, or lower `--model.optimizer.lr`; under fp16, use `--trainer.precision bf16-mixed`."
    )


def _state_of_weights(*, changed: bool) -> str:
    if changed:
        return (
            "This was found after the step, so the weights in memory are already corrupted. (RunHealth's "
            "`check_every_step: true` finds it before the step, but makes training on a GPU a little slower.)"
        )
    return "Stopped before this step changed the weights."


def guards_of(trainer: Trainer) -> list[FiniteGuard]:
    """The trainer's guards."""
    return [callback for callback in trainer.callbacks if isinstance(callback, FiniteGuard)]  # type: ignore[attr-defined]


def _origins(micro_batches: list[Batch]) -> tuple[str, ...]:
    return tuple(origin for micro_batch in micro_batches for origin in micro_batch.origins)


def _culprits(trainer: Trainer, module: LightningModule, micro_batches: list[Batch]) -> list[str]:
    """Name the documents whose own loss is not finite, unless that is all of them; takes one more forward pass."""
    if trainer.world_size > 1:
        return []  # gathering sharded weights takes all processes, and the others have found nothing
    backbone = cast("LitCausalLM", module).backbone
    culprits: list[str] = []
    with torch.no_grad(), undisturbed(backbone), trainer.precision_plugin.forward_context():
        for micro_batch in micro_batches:
            is_bad = ~token_nll(backbone, micro_batch).isfinite()
            documents = sorted(set(micro_batch.documents_at(micro_batch.targets[is_bad]).tolist()))
            culprits += [micro_batch.origins[index] for index in documents]
    if not culprits or len(culprits) == len(_origins(micro_batches)):
        return []
    return [f"  not finite on their own: {listed(culprits, MOST_ORIGINS)}"]


def _learning_rate(trainer: Trainer) -> float:
    return float(trainer.optimizers[0].param_groups[0]["lr"])


def _causes(trainer: Trainer, module: LightningModule) -> list[str]:
    causes = []
    if not all(bool(weight.isfinite().all()) for weight in module.parameters()):
        causes.append("the weights are not finite: damaged when loaded, or by an earlier step")
    causes.append("the learning rate: try a tenth of it (`--model.optimizer.lr`)")
    if not cast("LitCausalLM", module).optimizer_settings.num_warmup_steps(1000):
        causes.append("no warm-up: `--model.optimizer.warmup_ratio 0.05`")
    if not trainer.gradient_clip_val:
        causes.append("no gradient clipping: `--trainer.gradient_clip_val 1.0`")
    if str(trainer.precision) == "16-true":
        causes.append(
            "fp16 weights: AdamW's squares of small gradients become 0 in fp16; `--trainer.precision 16-mixed` keeps "
            "them in float32"
        )
    if str(trainer.precision).startswith("16"):
        causes.append("fp16, which overflows above 65,504: `--trainer.precision bf16-mixed`")
    causes.append("one of the records above: read them, or train without them")
    return causes


def _checkpoint(trainer: Trainer) -> str:
    # look in the folder: Lightning's own callback is not the only one that writes there
    folder = getattr(trainer.checkpoint_callback, "dirpath", None)
    found = sorted(Path(folder).glob("*.ckpt"), key=lambda path: path.stat().st_mtime) if folder else []
    if not found:
        return "No checkpoint had been written yet."
    return f"The last checkpoint is kept: {found[-1]}."
