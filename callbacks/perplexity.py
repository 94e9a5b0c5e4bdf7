"""Compares training and validation perplexity over a run: which step was best, and whether the model overfits."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.table import Table
from torch import Tensor

from callbacks.output import append_row, file_in_run, is_fitting, is_whole_validation, print_for
from data_modules.errors import UserError
from data_modules.rendering.masking import MASKS
from lit_sft.metrics.segments import SEGMENTS, perplexity
from lit_sft.models.loss import sums_of_step
from lit_sft.training.module import LitCausalLM


@dataclass(frozen=True, slots=True)
class Validation:
    """The values at one validation. All nll are in nats per token.

    Attributes:
        step: Optimiser steps done; 0 before training.
        epoch: Epochs done.
        train_nll: Mean over the training batches since the last validation, with the loss weights. None: no batches.
        val_nll: The same mean over the validation split.
        perplexity: Validation perplexity by segment or mask.
        is_best: Whether `val_nll` is the lowest so far.
    """

    step: int
    epoch: int
    train_nll: float | None
    val_nll: float
    perplexity: dict[str, float]
    is_best: bool

    @property
    def gap(self) -> float | None:
        """How much worse validation is than training, in nats per token."""
        return None if self.train_nll is None else self.val_nll - self.train_nll


class PerplexityMonitor(Callback):
    """Records training and validation perplexity side by side, under the same mask.

    The training metric needs no extra forward pass: it is the mean over the batches since the last validation, each
    with the weights and dropout of its step. Early in training it is therefore worse than validation.

    Logs `train/perplexity` and `val/gap` (nats), writes a row at every validation and prints the history at the end.

    Args:
        file: JSON lines in the run folder.
        segments: Segments or masks for which to record validation perplexity, such as `answer` or `whole_sequence`.

    Raises:
        UserError: If a segment or mask is unknown.
    """

    def __init__(
        self, file: str = "perplexity.jsonl", segments: tuple[str, ...] = ("answer", "whole_sequence")
    ) -> None:
        if unknown := [name for name in segments if name not in (*SEGMENTS, *MASKS)]:
            raise UserError(
                f"PerplexityMonitor segments: {', '.join(unknown)} unknown; expected some of "
                f"{', '.join((*SEGMENTS, *MASKS))}."
            )
        self.file, self.segments = file_in_run(self, file), tuple(segments)
        self.history: list[Validation] = []
        self._sums: Tensor | None = None
        """(2,) float64 on the device: weighted nats and weights of the interval, summed without synchronising."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the nats of a batch to the interval."""
        sums = sums_of_step(outputs)
        if sums is not None:
            self._sums = sums.double() if self._sums is None else self._sums.to(sums.device) + sums.double()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save and log the perplexities."""
        assert isinstance(pl_module, LitCausalLM)
        if not is_fitting(trainer) or not is_whole_validation(trainer):
            return
        validation = self._validation(trainer, pl_module.metrics["val"])
        self.history.append(validation)
        append_row(trainer, self.file, self._row(validation))
        self._log(trainer, validation)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the history and a verdict."""
        if self.history:
            print_for(trainer, self._table(), verdict(self.history))

    def state_dict(self) -> dict[str, Any]:
        """The history, and the sums of the current interval."""
        sums = None if self._sums is None else self._sums.tolist()
        return {"history": [asdict(validation) for validation in self.history], "sums": sums}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the history and the sums of the interval."""
        self.history = [Validation(**row) for row in state_dict["history"]]
        sums = state_dict["sums"]
        self._sums = None if sums is None else torch.tensor(sums, dtype=torch.float64)

    def _validation(self, trainer: Trainer, metrics: dict[str, float]) -> Validation:
        val_nll = metrics["loss"]
        return Validation(
            step=trainer.global_step,
            epoch=trainer.current_epoch,
            train_nll=self._finish_interval(trainer),
            val_nll=val_nll,
            perplexity={s: metrics[f"perplexity/{s}"] for s in self.segments if f"perplexity/{s}" in metrics},
            is_best=not math.isnan(val_nll) and all(not val_nll >= before.val_nll for before in self.history),
        )

    def _finish_interval(self, trainer: Trainer) -> float | None:
        if self._sums is None:
            return None
        reduced = trainer.strategy.reduce(self._sums, reduce_op="sum")
        assert isinstance(reduced, Tensor)
        nats, weight = reduced.tolist()
        self._sums = None
        return nats / weight if weight else None

    def _row(self, now: Validation) -> dict[str, Any]:
        before = self.history[0].perplexity if self.history[0].step == 0 else {}
        return {
            **asdict(now),
            "train_perplexity": None if now.train_nll is None else perplexity(now.train_nll),
            "val_perplexity": perplexity(now.val_nll),
            "gap": now.gap,
            "change": {name: value - before[name] for name, value in now.perplexity.items() if name in before},
        }

    def _log(self, trainer: Trainer, now: Validation) -> None:
        """Log directly to the loggers, so that the metrics Lightning uses to choose checkpoints stay unchanged."""
        if now.train_nll is None or now.gap is None:
            return
        for logger in trainer.loggers:
            logger.log_metrics({"train/perplexity": perplexity(now.train_nll), "val/gap": now.gap}, now.step)

    def _table(self) -> Table:
        best = best_of(self.history)
        table = Table(title="perplexity on training (since the last validation) and validation", title_justify="left")
        segments = [name for name in self.segments if any(name in row.perplexity for row in self.history)]
        for name in ("step", "epoch", "train", "val", "gap (nats)", *(s.replace("_", " ") for s in segments)):
            table.add_column(name, justify="right")
        table.add_column("")
        for row in self.history:
            train = "" if row.train_nll is None else _shown(perplexity(row.train_nll))
            gap = "" if row.gap is None else f"{row.gap:+.3f}"
            parts = [_shown(row.perplexity[name]) if name in row.perplexity else "" for name in segments]
            mark = "best" if row is best else ""
            table.add_row(str(row.step), str(row.epoch), train, _shown(perplexity(row.val_nll)), gap, *parts, mark)
        return table


def best_of(history: list[Validation]) -> Validation | None:
    """The first validation with the lowest loss; None if no validation has a loss."""
    return next((row for row in reversed(history) if row.is_best), None)


def num_overfitted(history: list[Validation]) -> int:
    """How many consecutive validations, up to the last, got worse while training got better."""
    count = 0
    for before, after in zip(history[-2::-1], history[:0:-1], strict=True):
        if before.train_nll is None or after.train_nll is None:
            break
        if not (after.val_nll > before.val_nll and after.train_nll < before.train_nll):
            break
        count += 1
    return count


def verdict(history: list[Validation]) -> str:
    """Describe which step was best, and whether the model overfitted after it."""
    best, count = best_of(history), num_overfitted(history)
    if best is None:
        return "There is no validation loss: the training mask supervises no validation token."
    text = f"Best validation: step {best.step}, perplexity {_shown(perplexity(best.val_nll))}."
    if not count:
        return text
    validations = "validation was" if count == 1 else f"{count} validations were each"
    return (
        f"{text} Overfitting: the last {validations} worse than the one before while training got better. "
        "Train for fewer steps, on more data, or with a lower learning rate."
    )


def _shown(value: float) -> str:
    return f"{value:,.2f}" if value < 1000 else f"{value:,.0f}"
