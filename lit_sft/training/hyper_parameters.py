"""The settings of a model inside its checkpoints, as plain values that loading never has to unpickle."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data_modules.errors import UserError
from lit_sft.models.adapters import LoraSettings
from lit_sft.models.backbone import BackboneSettings
from lit_sft.models.generation import GenerationSettings
from lit_sft.training.optimization import OptimizerSettings


def plain_settings(
    backbone: BackboneSettings, optimizer: OptimizerSettings, generation: GenerationSettings
) -> dict[str, Any]:
    """Settings as JSON values; a path becomes its text."""
    settings = {"backbone": asdict(backbone), "optimizer": asdict(optimizer), "generation": asdict(generation)}
    values: dict[str, Any] = json.loads(json.dumps(settings, default=str))
    return values


def settings_from(saved: dict[str, Any], path: Path) -> dict[str, Any]:
    """The settings in a checkpoint, as arguments of LitCausalLM.

    Code of a model's own is not trusted because a checkpoint says so.

    Args:
        saved: What a checkpoint holds.
        path: Of it, for messages.

    Raises:
        UserError: If it holds none, or others than this version knows.
    """
    values = saved.get("hyper_parameters")
    if not values:
        raise UserError(
            f"{path}: written by an older version, without the model's settings. Give them: "
            "`LitCausalLM.load_from_checkpoint(path, backbone=BackboneSettings(...))`; or load the `model` folder of "
            "its run with transformers."
        )
    try:
        backbone = dict(values["backbone"])
        backbone |= {"lora": LoraSettings(**backbone["lora"]), "trust_remote_code": False}
        return {
            "backbone": BackboneSettings(**backbone),
            "optimizer": OptimizerSettings(**values["optimizer"]),
            "generation": GenerationSettings(**values["generation"]),
        }
    except (TypeError, KeyError, ValueError) as error:
        raise UserError(
            f"{path}: its settings are not those of this version ({error}). Give them: "
            "`LitCausalLM.load_from_checkpoint(path, backbone=BackboneSettings(...))`."
        ) from None
