"""Adds up LoRA adapters of the same base model, with weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor

from data_modules.digests import check_digests
from data_modules.errors import UserError
from data_modules.wording import listed
from lit_sft.files import read_json
from lit_sft.models.adapters import WEIGHTS
from lit_sft.models.continued_adapter import WITHOUT_EFFECT, keeps_base

Method = Literal["cat", "linear", "ties", "dare_linear", "dare_ties"]

_OWN = {"r", "lora_alpha", "use_rslora", "target_modules", "fan_in_fan_out", "ensure_weight_tying"}
"""Settings that may have any value: they are honoured, or follow from the tensors."""


@dataclass(frozen=True)
class SavedAdapter:
    """A LoRA adapter in a folder.

    Attributes:
        folder: Where it is.
        settings: Its adapter_config.json.
        base: Digests of its base model, if this project wrote it.
        factors: A, (r, in), and B, (out, r), by layer.
    """

    folder: Path
    settings: dict[str, Any]
    base: dict[str, Any]
    factors: dict[str, tuple[Tensor, Tensor]]

    @property
    def scale(self) -> float:
        """What the product of its factors is multiplied by."""
        rank = self.settings["r"]
        return float(self.settings["lora_alpha"] / (math.sqrt(rank) if self.settings.get("use_rslora") else rank))


def read_adapter(folder: Path) -> SavedAdapter:
    """Read an adapter without its base model.

    Raises:
        UserError: If it is not plain LoRA in safetensors, is damaged, or has changed since it was exported.
    """
    from peft import LoraConfig

    check_digests(folder)
    settings = read_json(folder / "adapter_config.json", advice="copy the adapter again") or {}
    if settings.get("peft_type") != "LORA" or not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder}: expected a LoRA adapter with {WEIGHTS}.")
    plain = LoraConfig().to_dict()
    odd = [
        name
        for name, value in settings.items()
        if name not in _OWN | WITHOUT_EFFECT and (value or None) != (plain.get(name) or None)
    ]
    odd += [] if keeps_base(settings) else ["init_lora_weights"]
    if odd:
        raise UserError(
            f"{folder}: has {odd[0]} ({settings[odd[0]]}). Only adapters with plain LoRA, alike in all layers, "
            "are added up. Merge it into its base instead."
        )
    written = read_json(folder / "lit_sft.json", advice="export the adapter again") or {}
    return SavedAdapter(folder, settings, written.get("base") or {}, _factors(folder))


def check_alike(adapters: Sequence[SavedAdapter]) -> None:
    """Refuse adapters that were not trained on the same weights of the same layers.

    Raises:
        UserError: If they differ; the message says in what.
    """
    first = adapters[0]
    for other in adapters[1:]:
        names = [each.settings.get("base_model_name_or_path") for each in (first, other)]
        parts = [part for part in ("config", "weights") if part in first.base and part in other.base]
        same = all(first.base[part] == other.base[part] for part in parts) if parts else names[0] == names[1]
        if not same:
            raise UserError(
                f"{other.folder}: trained on another base model ({names[1]}) than {first.folder} ({names[0]}). Only "
                "adapters of the same base can be added up."
            )
        kinds = [each.base.get("quantization") or "not quantised" for each in (first, other)]
        if kinds[0] != kinds[1]:
            raise UserError(
                f"{other.folder}: its base is {kinds[1]}, that of {first.folder} {kinds[0]}; expected the same."
            )
        if differing := first.factors.keys() ^ other.factors.keys():
            raise UserError(
                f"{other.folder}: adapts other layers than {first.folder}, such as {min(differing)}. Only adapters "
                "with the same target_modules can be added up."
            )
        if any(_outer(first.factors[layer]) != _outer(other.factors[layer]) for layer in first.factors):
            raise UserError(f"{other.folder}: its layers have other sizes than those of {first.folder}.")


def added_up(
    adapters: Sequence[SavedAdapter], weights: Sequence[float], method: Method = "cat", density: float = 0.5
) -> dict[str, tuple[Tensor, Tensor]]:
    """The factors of one adapter, whose scale is 1, in float32.

    Args:
        adapters: Alike.
        weights: Of each of them.
        method: `cat` sets the factors side by side: their product is exactly the weighted sum of all products, and the
            rank is the sum of all ranks. The others add up A and B apart, as peft does, so that the product has mixed
            terms too: `linear`; `ties` keeps the largest values and those with the majority's sign; `dare_linear` and
            `dare_ties` keep random values and scale them up.
        density: Share of the values that `ties` and `dare` keep.

    Raises:
        UserError: If a method other than `cat` is given adapters of several ranks.

    Source: TIES (arXiv 2306.01708), DARE (arXiv 2311.03099), here of factors instead of weights, like peft's
    `add_weighted_adapter`.
    """
    ranks = [adapter.settings["r"] for adapter in adapters]
    if method != "cat" and len({*ranks}) > 1:
        raise UserError(f"--method {method}: the ranks of the adapters are {listed(list(map(str, ranks)))}; use cat.")
    scales = [weight * adapter.scale for weight, adapter in zip(weights, adapters, strict=True)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # dare draws at random: the same values every time
        return {
            layer: _joined([adapter.factors[layer] for adapter in adapters], scales, method, density)
            for layer in sorted(adapters[0].factors)
        }


def _joined(
    factors: Sequence[tuple[Tensor, Tensor]], scales: Sequence[float], method: Method, density: float
) -> tuple[Tensor, Tensor]:
    a_all, b_all = ([pair[index].float() for pair in factors] for index in (0, 1))
    if method == "cat":
        return torch.cat([scale * a for scale, a in zip(scales, a_all, strict=True)]), torch.cat(b_all, dim=1)
    from peft.utils import merge_utils

    roots = torch.tensor([math.sqrt(abs(scale)) for scale in scales])
    if method == "linear":
        add: Any = merge_utils.task_arithmetic
    else:
        function = getattr(merge_utils, method)
        add = lambda tensors, by: function(tensors, by, density)  # noqa: E731
    return add(a_all, roots * torch.tensor(scales).sign()), add(b_all, roots)


def _factors(folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """The tensors of a file in pairs, by layer.

    Raises:
        UserError: If it cannot be read, or has other tensors.
    """
    try:
        tensors = load_file(folder / WEIGHTS)
    except Exception as error:
        raise UserError(f"{folder / WEIGHTS}: cannot be read ({error}). Copy the adapter again.") from None
    layers = sorted({name.partition(".lora_")[0] for name in tensors})
    pairs = {layer: (tensors.get(f"{layer}.lora_A.weight"), tensors.get(f"{layer}.lora_B.weight")) for layer in layers}
    whole = {layer: (a, b) for layer, (a, b) in pairs.items() if a is not None and b is not None}
    if not whole or 2 * len(whole) != len(tensors):
        raise UserError(f"{folder / WEIGHTS}: expected only pairs of lora_A and lora_B, one for each layer.")
    if not all(tensor.isfinite().all() for pair in whole.values() for tensor in pair):
        raise UserError(f"{folder / WEIGHTS}: has weights that are not finite; the training that wrote it diverged.")
    return whole


def _outer(pair: tuple[Tensor, Tensor]) -> tuple[int, int]:
    return pair[0].shape[1], pair[1].shape[0]
