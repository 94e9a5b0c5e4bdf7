"""Whether an objective works with the other settings of a run."""

from __future__ import annotations

import warnings

from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy

from data_modules.errors import UserError, UserNotice
from lit_sft.models.backbone import BackboneSettings
from lit_sft.models.objectives import ObjectiveSettings


def check_objective(settings: ObjectiveSettings, backbone: BackboneSettings, strategy: Strategy) -> None:
    """Refuse an objective that cannot be computed, and warn about one that makes no sense for the model.

    Raises:
        UserError: If a strategy shards the weights, and the objective needs a copy of them; or if the model without
            its adapters is not the one before training.
    """
    is_whole = isinstance(strategy, SingleDeviceStrategy | DDPStrategy)
    if settings.needs_reference and backbone.tuning == "full" and not is_whole:
        raise UserError(
            f"--model.objective with {type(strategy).__name__}: it compares the model with the one before training, of "
            "which every process would keep a whole copy. Use `--model.backbone.tuning lora`, which needs no copy, or "
            "DDP: `--config configs/overlays/ddp.yaml`."
        )
    if settings.needs_reference and (started := _not_from_base(backbone)):
        raise UserError(
            f"{started}: the objective compares the model with the one before training, which is the base model "
            "without adapters. Merge the adapter and train a new one on the merged model, or leave the setting out."
        )
    if backbone.pretrained is None and (reason := _needs_pretrained(settings)):
        warnings.warn(
            f"{reason} Use `--model.objective.name next_token` for random weights, or `--model.backbone.pretrained`.",
            UserNotice,
            stacklevel=2,
        )


def _not_from_base(backbone: BackboneSettings) -> str:
    """The setting with which a model without its adapters is not the model before training; empty if there is none."""
    if backbone.adapter is not None:
        return f"--model.backbone.adapter {backbone.adapter}"
    if backbone.tuning == "lora" and backbone.lora.changes_base:
        return f"--model.backbone.lora.init {backbone.lora.init}"
    return ""


def _needs_pretrained(settings: ObjectiveSettings) -> str:
    """Why an objective makes no sense for a model with random weights; empty if it does."""
    if settings.needs_reference:
        return "--model.objective compares the model with the one before training, whose weights are random."
    if settings.name in ("dft", "profit"):
        return (
            f"--model.objective.name {settings.name} trains a token the more, the likelier the model finds it already; "
            "a model with random weights finds none likely and will learn little or nothing."
        )
    return ""
