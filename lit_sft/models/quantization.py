"""Stores the frozen weights of a base model in 8 or 4 bits; LoRA adapters are trained beside them, as in QLoRA.

Only weights are quantised, and every product is computed in the precision of its input. bitsandbytes' own layers also
round activations (int8), by columns that depend on what else is in the batch, or compute differently in evaluation and
in training; here packed, padded and evaluated rows give the same results, on every device.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from data_modules.errors import UserError

Quantization = Literal["int8", "nf4"]

_NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
"""Quantiles of a normal distribution, scaled to [-1, 1]. Source: QLoRA (arXiv 2305.14314), appendix E."""

_BLOCK = 64
"""Weights that share a scale in nf4; as in bitsandbytes."""


class QuantizedLinear(nn.Linear):
    """A frozen linear layer whose weight is stored in 8 or 4 bits. Gradients flow to its input only.

    Args:
        linear: The layer to replace; its bias is kept.
        kind: `int8`, with a scale for each row, or `nf4`, with one for each 64 weights.
    """

    def __init__(self, linear: nn.Linear, kind: Quantization) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.kind = linear.in_features, linear.out_features, kind
        codes, scale = (_to_int8 if kind == "int8" else _to_nf4)(linear.weight.detach().float())
        self.weight = nn.Parameter(codes, requires_grad=False)
        self.bias = linear.bias
        self.scale: Tensor
        self.register_buffer("scale", scale, persistent=False)
        self._held: dict[torch.dtype, Tensor] | None = None  # see `dequantized_once`

    def dequantized(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The (out, in) weight, rounded to a dtype."""
        if self._held is None:
            return self._computed(dtype)
        if dtype not in self._held:
            self._held[dtype] = self._computed(dtype)
        return self._held[dtype]

    def _computed(self, dtype: torch.dtype) -> Tensor:
        if self.kind == "int8":
            return (self.weight.float() * self.scale).to(dtype)
        pairs = _pairs(self.weight.device)[self.weight.int()]  # two weights in each byte
        weight = pairs.reshape(-1, _BLOCK) * self.scale
        return weight.reshape(-1)[: self.out_features * self.in_features].view(self.out_features, -1).to(dtype)

    def plain(self) -> nn.Linear:
        """An ordinary layer with the dequantised weight, in float32."""
        linear = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        linear.weight, linear.bias = nn.Parameter(self.dequantized(), requires_grad=False), self.bias
        return linear

    def forward(self, input: Tensor) -> Tensor:
        """The product with the dequantised weight; autocast applies as to any linear layer."""
        product: Tensor = _Product.apply(input, self)  # type: ignore[no-untyped-call]
        return product

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move to a device or change the precision; scales stay in float32."""
        scale = self.scale
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.scale = scale.to(self.weight.device)
        if self._held:
            self._held = {}  # its weights are on the former device
        return self


class _Product(torch.autograd.Function):
    """A linear layer that dequantises its weight again in the backward pass, instead of storing it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: QuantizedLinear) -> Tensor:
        device, dtype = x.device.type, x.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        ctx.layer, ctx.dtype = layer, x.dtype
        bias = None if layer.bias is None else layer.bias.to(dtype)
        return F.linear(x.to(dtype), layer.dequantized(dtype), bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return (gradient @ ctx.layer.dequantized(gradient.dtype)).to(ctx.dtype), None


def quantize(model: PreTrainedModel, kind: Quantization, keep: Collection[str] = ()) -> None:
    """Quantise the linear layers of a model in place, on the CPU. The embedding, norms and head keep their precision.

    Args:
        model: In full precision.
        kind: How weights are stored.
        keep: Names of layers to leave as they are, because they are trained in full.

    Raises:
        UserError: If its layers are not linear layers, such as GPT-2's.
    """
    if any(isinstance(module, Conv1D) for module in model.modules()):
        raise UserError(
            f"--model.backbone.quantization {kind}: the layers of {model.config.model_type} (Conv1D) cannot be "
            "quantised here. Leave it out, or use a model such as Qwen2 or Llama."
        )
    head = model.get_output_embeddings()
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and module is not head and not _is_named(name, keep):
            model.set_submodule(name, QuantizedLinear(module, kind))


def dequantize(model: nn.Module) -> None:
    """Replace quantised layers by ordinary ones with the weights that they compute with, in place."""
    for name, module in list(model.named_modules()):
        if isinstance(module, QuantizedLinear):
            model.set_submodule(name, module.plain())


def parameter_sizes(model: nn.Module) -> list[tuple[int, bool]]:
    """How many weights each parameter holds, and whether it is trained. A byte of nf4 holds two."""
    quantized = (layer for layer in model.modules() if isinstance(layer, QuantizedLinear))
    sizes = {id(layer.weight): layer.in_features * layer.out_features for layer in quantized}
    return [(sizes.get(id(each), each.numel()), each.requires_grad) for each in model.parameters()]


@contextmanager
def dequantized_once(model: nn.Module) -> Iterator[None]:
    """Temporarily keep the weights that the layers compute with, for generation, which needs all for each token.

    A weight is dequantised when its layer is first used, and takes the memory of an ordinary one until the end.
    """
    layers = [module for module in model.modules() if isinstance(module, QuantizedLinear) and module._held is None]
    for layer in layers:
        layer._held = {}
    try:
        yield
    finally:
        for layer in layers:
            layer._held = None


def _to_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric, with the largest weight of each row at 127. Source: LLM.int8() (arXiv 2208.07339), section 2.1."""
    scale = weight.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / 127
    return (weight / scale).round().to(torch.int8), scale


def _to_nf4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Two weights to a byte, with the largest weight of each block at 1. Source: QLoRA, without double quantisation."""
    blocks = F.pad(weight.flatten(), (0, -weight.numel() % _BLOCK)).view(-1, _BLOCK)
    scale = blocks.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    levels = torch.tensor(_NF4)
    codes = torch.bucketize(blocks / scale, (levels[1:] + levels[:-1]) / 2).to(torch.uint8).flatten()
    return codes[::2] << 4 | codes[1::2], scale


def _pairs(device: torch.device) -> Tensor:
    """(256, 2): the two levels in each byte."""
    levels = torch.tensor(_NF4, device=device)
    return torch.stack([levels.repeat_interleave(16), levels.repeat(16)], dim=1)


def _is_named(name: str, names: Collection[str]) -> bool:
    return any(name == other or name.endswith(f".{other}") for other in names)
