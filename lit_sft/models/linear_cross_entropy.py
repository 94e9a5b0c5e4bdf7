"""Cross-entropy of a linear head without its logits: only one chunk of them is ever alive.

The gradients are computed with the loss, while the chunk is at hand: three products with the head instead of the four
of recomputing it in the backward pass, and two where the head is frozen.

Source: the idea is that of Liger's fused linear cross-entropy; here in plain matrix products, which CPUs and GPUs do
near their limits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_CHUNK_ON_CPU = 256
_CHUNK_ON_GPU = 4096


def linear_cross_entropy(
    hidden_states: Tensor, weight: Tensor, bias: Tensor | None, ids: Tensor, shares: Tensor
) -> tuple[Tensor, Tensor]:
    """The weighted sum of the negative log-likelihoods of tokens, and each of them.

    Products are made in the dtype of autocast, where it is on, else of the hidden_states; sums in float32 at least.

    Args:
        hidden_states: Hidden states that predict the tokens, (N, D).
        weight: Of the head, (V, D).
        bias: Of the head, (V,), or None.
        ids: The tokens, (N,) int64.
        shares: Weight of each token in the sum, (N,), not negative.

    Returns:
        The sum, a scalar with gradients; and (N,) nats without. With N = 0 the gradients are zero.
    """
    device = hidden_states.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_states.dtype
    loss, nll = _LinearCrossEntropy.apply(hidden_states, weight, bias, ids, shares, dtype)  # type: ignore[no-untyped-call]
    return loss, nll


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        ids: Tensor,
        shares: Tensor,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        with torch.autocast(hidden_states.device.type, enabled=False):
            wide = torch.promote_types(dtype, torch.float32)
            # a share of a thousandth times a small probability would vanish in fp16: inside, the largest share is 1
            scale = shares.max().clamp_min(1e-30).to(wide) if len(shares) else shares.new_ones((), dtype=wide)
            sums = _Sums(ctx.needs_input_grad, hidden_states, weight, bias, wide)
            nll = torch.empty(len(ids), dtype=wide, device=hidden_states.device)
            head, shift = weight.to(dtype), None if bias is None else bias.to(wide)
            size = _CHUNK_ON_CPU if hidden_states.device.type == "cpu" else _CHUNK_ON_GPU
            for start in range(0, len(ids), size):
                part = slice(start, start + size)
                chunk = hidden_states[part].to(dtype)
                logits = (chunk @ head.T).to(wide)
                if shift is not None:
                    logits += shift
                nll[part], grad = _nll_and_gradient(logits, ids[part], shares[part].to(wide) / scale)
                sums.add(part, grad, chunk, head)
        ctx.sums, ctx.scale = sums, scale
        ctx.mark_non_differentiable(nll)
        return (nll * shares).sum(), nll

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        hidden_states, weight, bias = ctx.sums.scaled(grad_loss * ctx.scale)
        return hidden_states, weight, bias, None, None, None


class _Sums:
    """Gradients of hidden_states, weight and bias, as far as they are wanted, gathered over the chunks."""

    def __init__(
        self, wanted: tuple[bool, ...], hidden_states: Tensor, weight: Tensor, bias: Tensor | None, wide: torch.dtype
    ) -> None:
        self.hidden_states = torch.empty_like(hidden_states) if wanted[0] else None
        self.weight = torch.zeros_like(weight, dtype=wide) if wanted[1] else None
        self.bias = torch.zeros_like(bias, dtype=wide) if wanted[2] and bias is not None else None
        self.dtypes = (hidden_states.dtype, weight.dtype, weight.dtype)

    def add(self, part: slice, grad: Tensor, chunk: Tensor, head: Tensor) -> None:
        """Add a chunk: its (n, V) gradient of the logits, (n, D) hidden_states and the (V, D) head."""
        if self.bias is not None:
            self.bias += grad.sum(0)
        narrow = grad.to(chunk.dtype)
        if self.hidden_states is not None:
            self.hidden_states[part] = narrow @ head
        if self.weight is not None:
            self.weight += narrow.T @ chunk

    def scaled(self, factor: Tensor) -> list[Tensor | None]:
        """The gradients times a factor, in the dtypes of what they are gradients of."""
        sums = (self.hidden_states, self.weight, self.bias)
        return [
            None if total is None else (total * factor.to(total.dtype)).to(dtype)
            for total, dtype in zip(sums, self.dtypes, strict=True)
        ]


def _nll_and_gradient(logits: Tensor, ids: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """(n, V) logits to (n,) nats and the (n, V) gradient of their weighted sum, in the memory of the logits."""
    # every pass over a matrix of V columns costs: one exponential serves the sum and the gradient
    target, factor = ids.unsqueeze(1), shares.unsqueeze(1).to(logits.dtype)
    highest = logits.amax(1, keepdim=True)
    wanted = logits.gather(1, target)
    powers = logits.sub_(highest).exp_()
    total = powers.sum(1, keepdim=True)
    nll = (total.log() + highest - wanted).squeeze(1)
    gradient = powers.mul_(factor / total)
    return nll, gradient.scatter_add_(1, target, -factor)
