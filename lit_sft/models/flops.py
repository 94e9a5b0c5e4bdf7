"""The floating-point operations that training needs, whatever the implementation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig
from transformers.pytorch_utils import Conv1D

from lit_sft.models.adapters import LoraSettings

PEAK_TERAFLOPS = {
    "H200": 989.0, "H100 80GB HBM3": 989.0, "H100 PCIe": 756.0, "A100": 312.0, "L40S": 362.0, "L4": 121.0, "A10": 125.0,
}  # fmt: skip
"""Peak rate of matrix products in bfloat16 by name of the GPU, dense. Source: NVIDIA's data sheets."""


@dataclass(frozen=True)
class ModelFlops:
    """A model's multiply-adds per token, by part. Each is two floating-point operations.

    Attributes:
        layers: Weights in the matrices of all layers; of experts, those that a token passes.
        adapters: Weights in the LoRA adapters.
        head: Weights in the vocabulary head.
        scores: Total width of the attention heads in all layers.
        has_reference: Whether every document also passes through a reference model, without gradients.
    """

    layers: int
    adapters: int
    head: int
    scores: int
    has_reference: bool = False

    def flops(self, lengths: Sequence[int], supervised: int, tuning: str) -> float:
        """Floating-point operations that any implementation needs to train on some documents.

            full:  2 * (3 * layers * T + 3 * head * N) + attention
            LoRA:  2 * (2 * layers * T + 3 * adapters * T + 2 * head * N) + attention
            attention = 3 * 2 * 2 * scores * (sum of t * (t + 1) / 2 over the documents)
            reference: 2 * (layers * T + head * N) + attention / 3 more

        The factor 3 is one product forward and two backward (for the input and the weight); a frozen weight saves one.
        T counts real tokens, N supervised tokens: padding, unsupervised logits, recomputation and the masked half of
        the scores are not needed. Element-wise operations, norms and the optimiser are not counted, which is why no
        implementation reaches the peak rate of matrix products.

        Args:
            lengths: Tokens t in each document.
            supervised: N.
            tuning: `full` or `lora`.
        """
        tokens, pairs = sum(lengths), sum(length * (length + 1) // 2 for length in lengths)
        frozen = tuning == "lora"
        linear = (2 if frozen else 3) * (self.layers * tokens + self.head * supervised)
        adapters = 3 * self.adapters * tokens if frozen else 0
        reference = self.layers * tokens + self.head * supervised if self.has_reference else 0
        passes = 4 if self.has_reference else 3
        return 2.0 * (linear + adapters + reference) + passes * 2 * 2 * self.scores * pairs


def model_flops(
    config: PretrainedConfig, lora: LoraSettings | None = None, *, has_reference: bool = False
) -> ModelFlops:
    """Count a model's multiply-adds from its config alone.

    Args:
        config: The model's config.
        lora: Settings of its adapters.
        has_reference: Whether the objective compares the model with the one before training.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    matrices = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D) and m is not head}
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    adapted = [m for name, m in matrices.items() if lora is not None and _is_target(name, lora.target_modules)]
    return ModelFlops(
        layers=sum(m.weight.numel() for m in matrices.values()) + _expert_weights(model),
        adapters=sum(lora.rank * sum(m.weight.shape) for m in adapted) if lora else 0,
        head=head.weight.numel(),
        scores=config.num_hidden_layers * config.num_attention_heads * width,
        has_reference=has_reference,
    )


def peak_flops(device_name: str) -> float | None:
    """Peak rate of a GPU for matrix products in half precision, in floating-point operations a second; None if unknown.

    Args:
        device_name: As `torch.cuda.get_device_name` gives it. Part of a GPU (MIG) counts as unknown.
    """
    if "MIG" in device_name.split():
        return None
    words = f" {device_name.replace('-', ' ')} "
    found = [peak for name, peak in PEAK_TERAFLOPS.items() if f" {name} " in words]
    return found[0] * 1e12 if found else None


def _expert_weights(model: nn.Module) -> int:
    """Weights of the experts that a token passes, where all experts of a layer are one tensor."""
    chosen = getattr(model.config, "num_experts_per_tok", 0)
    modules = (module for module in model.modules() if not isinstance(module, nn.Conv1d))
    weights = (weight for module in modules for weight in module.parameters(recurse=False) if weight.dim() == 3)
    return sum(weight.numel() * chosen // len(weight) for weight in weights)


def _is_target(name: str, targets: str | list[str]) -> bool:
    if isinstance(targets, str):
        return targets in ("all-linear", name.rpartition(".")[2])
    return any(name == target or name.endswith(f".{target}") for target in targets)
