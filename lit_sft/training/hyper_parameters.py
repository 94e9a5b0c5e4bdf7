"""Saves a model's settings in its checkpoints as plain values, so that loading never unpickles anything."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data_modules.errors import UserError
from lit_sft.models.adapters import LoraSettings
from lit_sft.models.backbone import BackboneSettings
from lit_sft.models.generation import GenerationSettings
from lit_sft.models.objectives import ObjectiveSettings
from lit_sft.training.optimization import OptimizerSettings


def plain_settings(
    backbone: BackboneSettings,
    optimizer: OptimizerSettings,
    generation: GenerationSettings,
    objective: ObjectiveSettings,
) -> dict[str, Any]:
    """Settings as JSON values; paths become text."""
    settings = {
        "backbone": asdict(backbone),
        "optimizer": asdict(optimizer),
        "generation": asdict(generation),
        "objective": asdict(objective),
    }
    values: dict[str, Any] = json.loads(json.dumps(settings, default=str))
    return values


def settings_from(saved: dict[str, Any], path: Path) -> dict[str, Any]:
    """The settings in a checkpoint, as arguments of LitCausalLM.

    A checkpoint cannot set `trust_remote_code`.

    Args:
        saved: The loaded checkpoint.
        path: Its path, for error messages.

    Raises:
        UserError: If it has no settings, or settings that this version does not know.
    """
    values = saved.get("hyper_parameters")
    if not values:
        raise UserError(
            f"{path}: written by an older version, without the model's settings. Pass them: "
            "`LitCausalLM.load_from_checkpoint(path, backbone=BackboneSettings(...))`; or load the run's `model` "
            "folder with transformers."
        )
    try:
        backbone = dict(values["backbone"])
        backbone |= {"lora": LoraSettings(**backbone["lora"]), "trust_remote_code": False}
        return {
            "backbone": BackboneSettings(**backbone),
            "optimizer": OptimizerSettings(**values["optimizer"]),
            "generation": GenerationSettings(**values["generation"]),
            "objective": ObjectiveSettings(**values.get("objective", {})),
        }
    except (TypeError, KeyError, ValueError) as error:
        raise UserError(
            f"{path}: its settings do not match this version ({error}). Pass them: "
            "`LitCausalLM.load_from_checkpoint(path, backbone=BackboneSettings(...))`."
        ) from None
