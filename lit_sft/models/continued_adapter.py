"""Continues an adapter: training starts from the weights of an exported one, with its own rank, scale and layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import PreTrainedModel

from data_modules.digests import file_digest
from data_modules.errors import UserError
from data_modules.wording import listed
from lit_sft.files import digest, read_json
from lit_sft.models.adapters import WEIGHTS, LoraSettings, load_adapter, with_tied_head

if TYPE_CHECKING:
    from peft import LoraConfig

_SETTING = "--model.backbone.adapter"

_SET_TOKENS = "Set `--model.backbone.add_tokens` and `add_special_tokens` as in the run that trained it."

_UNDERSTOOD = {
    "r", "lora_alpha", "target_modules", "modules_to_save", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern",
    "layers_to_transform", "layers_pattern", "exclude_modules", "ensure_weight_tying", "fan_in_fan_out",
    "trainable_token_indices",
}  # fmt: skip
"""Settings of peft that change what an adapter computes, and with which adapters can be trained here."""

WITHOUT_EFFECT = {
    "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "lora_dropout", "init_lora_weights", "loftq_config", "eva_config", "corda_config", "lora_ga_config",
    "runtime_config", "megatron_core", "qalora_group_size",
}  # fmt: skip
"""Settings of peft that do not change what loaded weights compute."""

_KEEP_BASE = (None, True, False, "gaussian", "orthogonal", "eva")
"""Initialisations that leave the weights of the base model as they are."""


def adapter_settings(folder: str, lora: LoraSettings) -> LoraSettings:
    """The settings with which an adapter continues: its own, with this run's dropout.

    Args:
        folder: The adapter.
        lora: Settings of the run. Those left at their defaults give way to the adapter's.

    Raises:
        UserError: If the adapter cannot be read, or a setting contradicts it.
    """
    config, default = _config(folder), LoraSettings()
    own = LoraSettings(
        rank=config.r,
        alpha=config.lora_alpha,
        dropout=lora.dropout,
        target_modules=_plain(config.target_modules),
        modules_to_save=_plain(_kinds(config.modules_to_save or [])),
        rslora=config.use_rslora,
        dora=config.use_dora,
    )
    for setting in fields(lora):
        value, found = getattr(lora, setting.name), getattr(own, setting.name)
        if setting.name == "target_modules":
            found = _kinds(found)
        if value != getattr(default, setting.name) and _plain(value) != _plain(found):
            raise UserError(
                f"--model.backbone.lora.{setting.name} {value}: the adapter that continues ({_SETTING} {folder}) has "
                f"{found}. Leave this setting out: an adapter keeps its own."
            )
    return own


def described(lora: LoraSettings) -> str:
    """The settings of adapters in a line."""
    targets = _kinds(lora.target_modules)
    layers = [targets] if isinstance(targets, str) else targets
    kinds = [name for name, is_set in (("rslora", lora.rslora), ("dora", lora.dora)) if is_set]
    saved = [f"{', '.join(lora.modules_to_save)} in full"] if lora.modules_to_save else []
    return ", ".join([f"rank {lora.rank}", f"alpha {lora.alpha:g}", *kinds, f"on {', '.join(layers)}", *saved])


def continue_adapter(
    model: PreTrainedModel,
    folder: str,
    lora: LoraSettings,
    rows: dict[str, list[int]] | None = None,
    tokens: Sequence[str] = (),
) -> nn.Module:
    """Load an adapter into its base model, ready for training; everything else is frozen.

    Args:
        model: The base model.
        folder: The adapter, in safetensors.
        lora: Settings of the run; see `adapter_settings`.
        rows: Rows of new tokens to train, by layer; they must be those of the adapter. None: none.
        tokens: The new tokens, in the order of their ids; they too must be those of the adapter.

    Raises:
        UserError: If the adapter cannot be read, belongs to another model, or a setting contradicts it.
    """
    own, config = adapter_settings(folder, lora), _config(folder)
    _check_tokens(folder, tokens)
    _check_rows(config.trainable_token_indices, rows, folder)
    config.task_type, config.base_model_name_or_path, config.revision = "CAUSAL_LM", model.name_or_path, None
    config.lora_dropout, config.init_lora_weights = lora.dropout, True
    # peft leaves out a tied head when it saves the names
    config.modules_to_save = with_tied_head(model, own.modules_to_save)
    try:
        return load_adapter(model, Path(folder), config)
    except UserError as error:
        raise UserError(f"{_SETTING} {error}") from error


def adapter_identity(folder: str) -> dict[str, str]:
    """Digests of everything that training takes from an adapter: `adapter` of its settings, `adapter_weights`."""
    settings = read_json(Path(folder) / "adapter_config.json") or {}
    settings = {name: _plain(value) for name, value in settings.items() if name not in WITHOUT_EFFECT}
    return {"adapter": digest(settings), "adapter_weights": file_digest(Path(folder) / WEIGHTS)}


def _config(folder: str) -> LoraConfig:
    """The adapter's settings.

    Raises:
        UserError: If there is no adapter, or not one that can be trained here.
    """
    from peft import LoraConfig

    path = Path(folder) / "adapter_config.json"
    if not path.is_file():
        is_run = (Path(folder) / "config.yaml").is_file()
        advice = f"this is a run; its adapter is {Path(folder) / 'model'}" if is_run else "name a folder that has one"
        raise UserError(f"{_SETTING} {folder}: no adapter_config.json in this folder; {advice}.")
    if not (Path(folder) / WEIGHTS).is_file():
        raise UserError(f"{_SETTING} {folder}: no {WEIGHTS}; only safetensors files can be loaded.")
    written = read_json(path, advice="copy the adapter again") or {}
    if written.get("peft_type") != "LORA":
        raise UserError(f"{_SETTING} {folder}: an adapter of type {written.get('peft_type')}; expected LORA.")
    plain = LoraConfig()
    unknown = [
        f"{name} {value}"
        for name, value in written.items()
        if name not in _UNDERSTOOD | WITHOUT_EFFECT and _plain(value) != _plain(getattr(plain, name, None))
    ]
    if unknown:
        raise UserError(f"{_SETTING} {folder}: adapters with {unknown[0]} cannot be trained here; merge it instead.")
    if not keeps_base(written):
        raise UserError(
            f"{_SETTING} {folder}: it changed the weights of its base ({written['init_lora_weights']}). Convert it to "
            "plain LoRA with peft (`path_initial_model_for_weight_conversion`), or merge it."
        )
    try:
        config: LoraConfig = LoraConfig.from_pretrained(folder)
    except Exception as error:
        # odd values raise any of a dozen exception types
        raise UserError(f"{_SETTING} {folder}: adapter_config.json cannot be read ({error}).") from error
    return config


def _check_tokens(folder: str, tokens: Sequence[str]) -> None:
    """Refuse new tokens other than those of the adapter, which would get its rows if they have the same ids."""
    written = read_json(Path(folder) / "lit_sft.json", advice="export the adapter again")
    if written is not None and (has := written.get("new_tokens") or []) != [*tokens]:
        raise UserError(
            f"{_SETTING} {folder}: it was trained with new tokens ({listed(has) or 'none'}) other than those of this "
            f"run ({listed(tokens) or 'none'}). {_SET_TOKENS}"
        )


def _check_rows(found: object, wanted: dict[str, list[int]] | None, folder: str) -> None:
    """Refuse new tokens that the adapter does not have, and the other way round."""
    if (found or None) == wanted:
        return
    has, asked = (next(iter(rows.values())) if isinstance(rows, dict) else rows or "none" for rows in (found, wanted))
    raise UserError(
        f"{_SETTING} {folder}: it trains the embeddings of the tokens {has}, and this run adds {asked}. {_SET_TOKENS}"
    )


def keeps_base(settings: dict[str, Any]) -> bool:
    """Whether an adapter with these settings belongs to the base model as it was before training."""
    return settings.get("init_lora_weights") in _KEEP_BASE


def _kinds(targets: str | list[str]) -> str | list[str]:
    """Names of layers without where they are: peft writes `all-linear` as the path of every layer."""
    return targets if isinstance(targets, str) else sorted({target.rpartition(".")[2] for target in targets})


def _plain(value: Any) -> Any:
    """A value that can be compared: peft keeps names of layers in any order, and nothing as None, {} or False."""
    if isinstance(value, (set, list, tuple)):
        value = sorted(map(str, value))
    return value or None
