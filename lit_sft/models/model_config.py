"""Builds the config of a model with random weights, and checks it before any data is read."""

from __future__ import annotations

import copy
import re
from collections.abc import Set
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig
from transformers.activations import ACT2FN

from data_modules.errors import UserError
from data_modules.wording import did_you_mean

_WHERE = "--model.backbone.config"

_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
)
"""Settings that must be at least 1, by transformers' common names, which most models map to their own."""

_TYPES = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}

_LONGEST = 200


def config_from(values: dict[str, Any]) -> PretrainedConfig:
    """Build a model's config from the user's settings.

    Args:
        values: `model_type`, and settings that differ from its defaults.

    Raises:
        UserError: If the type or a setting is unknown, or a value has the wrong type or is out of range.
    """
    settings = dict(values)
    model_type = settings.pop("model_type", None)
    known = _defaults(model_type)
    names = {name for name in (*known.to_dict(), *known.attribute_map) if not name.startswith("_")}
    for name in settings:
        if name not in names:
            raise UserError(f"{_WHERE}: {model_type} has no setting {name}; {_nearest(str(name), names)}")
    try:
        config: PretrainedConfig = AutoConfig.for_model(model_type, **settings)
    except (TypeError, ValueError, StrictDataclassError) as error:
        raise UserError(_fault(error)) from None
    _check_sizes(config)
    return config


def check_buildable(config: PretrainedConfig) -> None:
    """Build the model without its weights, to check that its settings fit together.

    Raises:
        UserError: If they do not.
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=torch.float32)
    except Exception as error:
        # inconsistent settings raise any of a dozen exception types
        raise UserError(_misfit(config) or f"{_WHERE}: no model can be built from it ({_message_of(error)}).") from None


def _defaults(model_type: object) -> PretrainedConfig:
    if model_type is None:
        raise UserError(f"{_WHERE}: no model_type; expected one such as gpt2, qwen2 or llama.")
    try:
        return AutoConfig.for_model(model_type)
    except ValueError:
        raise UserError(
            f"{_WHERE}: transformers has no model_type {model_type!r}; expected one such as gpt2, qwen2 or llama."
        ) from None


def _nearest(name: str, names: Set[str]) -> str:
    return did_you_mean(name, names) or f"expected one of {', '.join(sorted(names))}."


def _fault(error: Exception) -> str:
    """The message of transformers about a setting, without the names of its internal checks."""
    message = " ".join(str(error).split())
    if wrong := re.search(r"Field '(\w+)' expected (\w+), got \w+ \(value: (.*)\)$", message):
        return f"{_WHERE}.{wrong[1]}: expected {_TYPES.get(wrong[2], wrong[2])}, got {wrong[3][:_LONGEST]}."
    message = re.sub(r"^(Class validation|Validation) error for (validator|field) '\w+': (\w+Error: )?", "", message)
    return f"{_WHERE}: {message[:_LONGEST]}"


def _check_sizes(config: PretrainedConfig) -> None:
    for name in _SIZES:
        size = getattr(config, name, None)
        if isinstance(size, int) and size < 1:
            raise UserError(f"{_WHERE}.{_own_name(config, name)} {size}: expected at least 1.")
    heads, shared = getattr(config, "num_attention_heads", None), getattr(config, "num_key_value_heads", None)
    if isinstance(heads, int) and isinstance(shared, int) and heads % shared:
        raise UserError(
            f"{_WHERE}: {_own_name(config, 'num_key_value_heads')} {shared} does not divide "
            f"{_own_name(config, 'num_attention_heads')} {heads}; change one of the two."
        )


def _misfit(config: PretrainedConfig) -> str | None:
    """Check for the most common reasons why a model cannot be built, using the names of its own config."""
    for name in ("activation_function", "hidden_act"):
        chosen = getattr(config, name, None)
        if isinstance(chosen, str) and chosen not in ACT2FN:
            return f"{_WHERE}.{name}: transformers has no activation {chosen}; {_nearest(chosen, set(ACT2FN))}"
    width, heads = getattr(config, "hidden_size", None), getattr(config, "num_attention_heads", None)
    if not (isinstance(width, int) and isinstance(heads, int) and width % heads):
        return None
    return (
        f"{_WHERE}: {_own_name(config, 'num_attention_heads')} {heads} does not divide "
        f"{_own_name(config, 'hidden_size')} {width}; change one of the two."
    )


def _own_name(config: PretrainedConfig, name: str) -> str:
    """The model's own name for a setting, such as GPT-2's `n_head`."""
    return str(config.attribute_map.get(name, name))


def _message_of(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:_LONGEST]}"
