"""How large a model is, how much memory training takes, and how much compute."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

from lit_sft.models.adapters import LoraSettings
from lit_sft.models.flops import ModelFlops, model_flops

_STATE = 16
"""Bytes for each trained weight: itself, its gradient and AdamW's two averages, in float32."""


@dataclass(frozen=True)
class ModelSize:
    """A model's size.

    Attributes:
        weights: Number of weights.
        layers: Number of layers.
        width: Hidden width.
        inner: Width inside the feed-forward part of a layer.
        is_gated: Whether that part has a gate.
        flops: Multiply-adds per token with all weights trained.
        lora_flops: The same with adapters.
    """

    weights: int
    layers: int
    width: int
    inner: int
    is_gated: bool
    flops: ModelFlops
    lora_flops: ModelFlops

    def state_bytes(self, tuning: str, *, is_mixed: bool) -> int:
        """Memory for weights, gradients and the optimiser; frozen weights take 2 bytes in mixed precision, else 4."""
        if tuning == "full":
            return _STATE * self.weights
        return (2 if is_mixed else 4) * self.weights + _STATE * self.lora_flops.adapters

    def bytes_per_token(self, *, is_mixed: bool, is_recomputed: bool = False) -> int:
        """Memory for what a token leaves behind for the backward pass.

        Source: Korthikanti et al. 2022, Reducing Activation Recomputation in Large Transformer Models (2205.05198),
        equation 2: 34 bytes a layer and unit of width at 2 bytes a number, without the scores, which are not kept; of
        these, 16 belong to a feed-forward part of four times the width, here split up to allow for other widths and for
        gates.

        Args:
            is_mixed: Whether numbers take 2 bytes, else 4.
            is_recomputed: Whether only the inputs of layers are kept, and one layer at a time is recomputed.
        """
        layer = 18 * self.width + (8 if self.is_gated else 4) * self.inner
        total = 2 * self.width * self.layers + layer if is_recomputed else layer * self.layers
        return total if is_mixed else 2 * total


def size_of(config: PretrainedConfig, lora: LoraSettings) -> ModelSize:
    """The size of a model, from its config alone.

    Args:
        config: The model's.
        lora: Settings of its adapters.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    width = int(config.hidden_size)
    inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * width
    return ModelSize(
        weights=sum(parameter.numel() for parameter in model.parameters()),
        layers=int(config.num_hidden_layers),
        width=width,
        inner=int(inner),
        is_gated=any(name.endswith(("gate_proj", "gate_up_proj")) for name, _ in model.named_modules()),
        flops=model_flops(config),
        lora_flops=model_flops(config, lora),
    )
