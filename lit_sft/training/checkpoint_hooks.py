"""What the module adds to its checkpoints beside weights, and what it checks before it loads one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import nn

from lit_sft.checkpoints.digests import check_intact
from lit_sft.models.adapters import is_adapted
from lit_sft.models.base_weights import check_base, identity_of
from lit_sft.models.saving import check_fit
from lit_sft.training.resuming import rewind_to_step


def add_metrics(
    checkpoint: dict[str, Any], last: dict[str, float], before: dict[str, float], *, global_step: int
) -> None:
    """Add the metrics of the validation before training, and of the last one if it was of these weights.

    Args:
        checkpoint: Changed in place, as Lightning's hook wants it.
        last: Of the last validation, with its step.
        before: Of the one before training.
        global_step: Optimiser steps taken.
    """
    if last.get("step") == global_step:
        checkpoint["figures"] = last
    checkpoint["figures_before"] = before


def add_origin(checkpoint: dict[str, Any], backbone: nn.Module, module: LightningModule, *, seed: int) -> None:
    """Add what the weights were trained on, and leave out the frozen ones around adapters.

    Args:
        checkpoint: Changed in place, as Lightning's hook wants it.
        backbone: The model.
        module: Its owner, whose parameters the checkpoint names.
        seed: What random weights followed from.
    """
    checkpoint["base"], checkpoint["seed"] = identity_of(backbone), seed
    if is_adapted(backbone):
        trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trained}


def add_progress(checkpoint: dict[str, Any], trainer: Trainer, identity: dict[str, str]) -> None:
    """Add what the run depends on, and let it resume behind the last optimiser step.

    Args:
        checkpoint: Changed in place, as Lightning's hook wants it.
        trainer: Fitting.
        identity: See `run_identity`.
    """
    checkpoint["identity"] = identity
    rewind_to_step(checkpoint["loops"], trainer.accumulate_grad_batches, trainer.num_training_batches)


def check_weights(
    checkpoint: dict[str, Any],
    path: Path,
    module: LightningModule,
    backbone: nn.Module,
    *,
    allow_changes: bool,
    advice: str = "",
) -> None:
    """Check that weights are undamaged, are this model's, and were trained on this base.

    Args:
        checkpoint: What is about to be loaded.
        path: Of it.
        module: What it is loaded into.
        backbone: Its model.
        allow_changes: Whether the base may be another one.
        advice: What else the user can do about another base.

    Raises:
        UserError: If they are not.
    """
    if path.is_file():
        check_intact(path)  # a trainer without AtomicCheckpointIO has not looked
    if "state_dict" in checkpoint:  # or a sharded model has been filled from it already
        check_fit(checkpoint["state_dict"], module, str(path), adapted=is_adapted(backbone))
    check_base(checkpoint.get("base"), identity_of(backbone), str(path), allow_changes=allow_changes, advice=advice)
