"""What the module adds to a checkpoint besides the weights, and what it checks before loading one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import nn

from lit_sft.checkpoints.digests import check_intact
from lit_sft.models.adapters import is_adapted
from lit_sft.models.base_weights import check_base, identity_of
from lit_sft.models.lora_starts import first_factors, restore_first_factors
from lit_sft.models.saving import check_fit
from lit_sft.training.resuming import rewind_to_step


def add_metrics(
    checkpoint: dict[str, Any], last: dict[str, float], before: dict[str, float], *, global_step: int
) -> None:
    """Add the metrics before training, and those of the last validation if it measured these weights.

    Args:
        checkpoint: Changed in place, as Lightning's hook expects.
        last: Metrics of the last validation, with its step.
        before: Metrics of the validation before training.
        global_step: Optimiser steps taken.
    """
    if last.get("step") == global_step:
        checkpoint["figures"] = last
    checkpoint["figures_before"] = before


def add_origin(checkpoint: dict[str, Any], backbone: nn.Module, module: LightningModule, *, seed: int) -> None:
    """Add the identity of the base model, and leave out frozen weights if the model has adapters.

    Args:
        checkpoint: Changed in place, as Lightning's hook expects.
        backbone: The model.
        module: Its owner, whose parameter names the checkpoint uses.
        seed: Seed of random weights.
    """
    checkpoint["base"], checkpoint["seed"] = identity_of(backbone), seed
    if is_adapted(backbone):
        trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trained}
    if factors := first_factors(backbone):
        checkpoint["first_factors"] = factors


def add_progress(checkpoint: dict[str, Any], trainer: Trainer, identity: dict[str, str]) -> None:
    """Add what the run depends on, and set the loops to resume after the last optimiser step.

    Args:
        checkpoint: Changed in place, as Lightning's hook expects.
        trainer: The trainer, while fitting.
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
    """Check that weights are undamaged, fit this model, and were trained on this base model.

    Adapters that started from parts of the base weights take them out of the base as the checkpoint says.

    Args:
        checkpoint: The checkpoint to load.
        path: Its path.
        module: The module to load it into.
        backbone: The module's model.
        allow_changes: Whether the base model may differ.
        advice: What else the user can do if the base model differs.

    Raises:
        UserError: If a check fails.
    """
    if path.is_file():
        check_intact(path)  # a trainer without AtomicCheckpointIO has not checked
    if "state_dict" in checkpoint:  # otherwise a sharded model has loaded it already
        check_fit(checkpoint["state_dict"], module, str(path), adapted=is_adapted(backbone))
    check_base(checkpoint.get("base"), identity_of(backbone), str(path), allow_changes=allow_changes, advice=advice)
    restore_first_factors(backbone, checkpoint.get("first_factors"), str(path))
