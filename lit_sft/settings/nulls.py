"""Rejects null for settings that cannot be null; jsonargparse accepts it for any type."""

from __future__ import annotations

import inspect
import re
from dataclasses import is_dataclass
from typing import Any, get_type_hints

from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from data_modules.errors import UserError
from lit_sft.models.backbone import BackboneSettings
from lit_sft.models.generation import GenerationSettings
from lit_sft.models.objectives import ObjectiveSettings
from lit_sft.settings.data_modules import DATA_MODULES
from lit_sft.settings.run_settings import RunSettings
from lit_sft.training.optimization import OptimizerSettings

_OWNERS: dict[str, Any] = {
    "trainer": Trainer,
    "checkpoint": ModelCheckpoint,
    "run": RunSettings,
    "model.backbone": BackboneSettings,
    "model.optimizer": OptimizerSettings,
    "model.generation": GenerationSettings,
    "model.objective": ObjectiveSettings,
}
"""The class behind each section of a config, except `data`."""


def refuse_nulls(config: Namespace) -> None:
    """Reject null for settings that cannot be null.

    Raises:
        UserError: If one is null; names it and its default.
    """
    owners = {**_OWNERS, "data": DATA_MODULES[config.data_module]}
    for name, owner in owners.items():
        refuse_nulls_of(owner, config.get(name), f"{name}.")


def refuse_nulls_of(owner: Any, values: Namespace, prefix: str = "") -> None:
    """Reject null for settings of a class that cannot be null.

    Args:
        owner: The class.
        values: Its settings.
        prefix: What comes before their names, such as `model.backbone.`.

    Raises:
        UserError: If one is null; names it and its default.
    """
    hints = get_type_hints(owner) if is_dataclass(owner) else {}
    for name, parameter in inspect.signature(owner).parameters.items():
        value, default, annotation = values.get(name), parameter.default, parameter.annotation
        kind = getattr(annotation, "__name__", str(annotation))
        nested = hints.get(name, type(default))
        if isinstance(value, Namespace) and is_dataclass(nested):
            refuse_nulls_of(nested, value, f"{prefix}{name}.")
        elif name in values and value is None and default is not None and not re.search("None|Optional|Any", kind):
            advice = "set it" if default is parameter.empty else f"leave it out for its default, {default!r}"
            raise UserError(f"--{prefix}{name}: cannot be null ({kind}); {advice}.")
