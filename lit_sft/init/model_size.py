"""How large a model is, how much memory training takes, and how much compute."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

from lit_sft.models.adapters import LoraSettings
from lit_sft.models.flops import ModelFlops, model_flops

_STATE = 16
"""Bytes for each trained weight: itself, its gradient and AdamW's two averages, in float32."""

_MEASURED = {("full", False): 2.4, ("lora", False): 3.8, ("full", True): 1.8, ("lora", True): 2.2}
"""Activations of a step, by tuning and whether the precision is mixed, in multiples of the formula of Korthikanti et
al. for 2 bytes a number. Fitted to the peaks of SmolLM2-135M on a CPU by benchmarks/init_memory.py: norms and residuals
stay in float32, and adapters add results of every layer."""

_WRITTEN_OUT = 16
"""Bytes for each unit inside a feed-forward part without a gate, instead of 4: GPT-2's GELU is written out in several
operations, whose results are kept."""

_RECOMPUTED = 0.35
"""Share of them that is left if layers are computed again, from the same measurements."""


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
        """Memory for weights, gradients and the optimiser.

        In mixed precision, frozen weights take 2 bytes instead of 4, and trained ones 2 more, for the copy that is
        multiplied.
        """
        if tuning == "full":
            return (_STATE + 2 * is_mixed) * self.weights
        return (2 if is_mixed else 4) * self.weights + _STATE * self.lora_flops.adapters

    def bytes_per_token(self, tuning: str, *, is_mixed: bool, is_recomputed: bool = False) -> int:
        """Memory for what a token leaves behind for the backward pass.

        Source: Korthikanti et al. 2022, Reducing Activation Recomputation in Large Transformer Models (2205.05198),
        equation 2: 34 bytes a layer and unit of width at 2 bytes a number, without the scores, which are not kept; of
        these, 16 belong to a feed-forward part of four times the width, here split up to allow for other widths and for
        gates. What a step really takes is more: see `_MEASURED`.

        Args:
            tuning: `full` or `lora`.
            is_mixed: Whether products are computed in half precision.
            is_recomputed: Whether layers are computed again in the backward pass.
        """
        layer = 18 * self.width + (8 if self.is_gated else _WRITTEN_OUT) * self.inner
        share = _RECOMPUTED if is_recomputed else 1.0
        return round(_MEASURED[tuning, is_mixed] * share * layer * self.layers)

    def step_bytes(self, tuning: str, tokens: int, *, is_mixed: bool, is_recomputed: bool) -> int:
        """Memory of a step with so many tokens in a pass."""
        per_token = self.bytes_per_token(tuning, is_mixed=is_mixed, is_recomputed=is_recomputed)
        return self.state_bytes(tuning, is_mixed=is_mixed) + per_token * tokens


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
