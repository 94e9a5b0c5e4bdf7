"""Adapters that start from parts of the base weights (PiSSA, OLoRA), which are taken out of the base.

With its first factors B0 A0, such an adapter computes (W - s B0 A0) + s B A. Checkpoints keep the first factors, so
that the same base is restored on any machine, and an export writes B A - B0 A0 as plain LoRA of twice the rank, for
the original base. Source: PiSSA (arXiv 2404.02948, appendix on conversion), OLoRA (arXiv 2406.01775).
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data_modules.errors import UserError

Factors = dict[str, Tensor]
"""The matrices of all adapters, by name in the backbone."""


def keep_first_factors(backbone: nn.Module) -> None:
    """Keep the factors with which the adapters start, because they were taken out of the base weights."""
    backbone.__dict__["first_factors"] = {name: value.clone() for name, value in _factors(backbone).items()}


def first_factors(backbone: nn.Module) -> Factors | None:
    """The factors that were taken out of the base weights; None if the base is whole."""
    found: Factors | None = backbone.__dict__.get("first_factors")
    return found


def restore_first_factors(backbone: nn.Module, saved: Factors | None, where: str) -> None:
    """Take the factors of a checkpoint out of the base weights instead of those found on this machine.

    Singular vectors of equal values may come out differently with another BLAS, or another number of threads.

    Args:
        backbone: Changed in place, if the factors differ.
        saved: The factors in the checkpoint.
        where: The checkpoint, for messages.

    Raises:
        UserError: If one has factors and the other has not.
    """
    now = first_factors(backbone)
    if (saved is None) != (now is None):
        how = "like the model's" if now is None else "from other weights"
        raise UserError(
            f"{where}: its adapters did not start {how}. Use the `--model.backbone.lora.init` that they were trained "
            "with."
        )
    if saved is None or now is None:
        return
    for name, layer in _layers(backbone).items():
        a, b = f"{name}.lora_A.default.weight", f"{name}.lora_B.default.weight"
        if not (torch.equal(saved[a], now[a]) and torch.equal(saved[b], now[b])):
            change = (now[b] @ now[a] - saved[b] @ saved[a]) * layer.scaling["default"]
            weight = layer.get_base_layer().weight
            weight.data += (change.T if layer.fan_in_fan_out else change).to(weight)
    backbone.__dict__["first_factors"] = saved


def save_adapter(backbone: Any, folder: Path) -> None:
    """Write an adapter as peft does; one that starts from the base weights is written as plain LoRA."""
    # of a larger vocabulary, only the trained rows are saved, and layers that are trained in full
    how = {"save_embedding_layers": False} if backbone.__dict__.get("new_tokens") else {}
    first = first_factors(backbone)
    if first is None:
        backbone.save_pretrained(folder, **how)
        return
    state = backbone.state_dict()
    for name, start in first.items():
        is_a = ".lora_A." in name
        other = start.to(state[name])
        state[name] = torch.cat([state[name], other if is_a else -other], dim=0 if is_a else 1)
    config = backbone.peft_config["default"]
    backbone.peft_config["default"] = _doubled(config)
    try:
        backbone.save_pretrained(folder, state_dict=state, **how)
    finally:
        backbone.peft_config["default"] = config


def _doubled(config: Any) -> Any:
    """The settings of an adapter of twice the rank, with the same scale."""
    doubled = copy.deepcopy(config)
    doubled.r, doubled.init_lora_weights = 2 * config.r, True
    doubled.lora_alpha = config.lora_alpha * (math.sqrt(2) if config.use_rslora else 2)
    return doubled


def _layers(backbone: nn.Module) -> dict[str, Any]:
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in backbone.named_modules() if isinstance(module, LoraLayer)}


def _factors(backbone: nn.Module) -> Factors:
    return {n: p.detach() for n, p in backbone.named_parameters() if ".lora_A." in n or ".lora_B." in n}
