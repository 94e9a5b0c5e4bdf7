"""Cross-entropy of a linear head that never holds all logits in memory, only one chunk at a time.

The gradients are computed together with the loss, chunk by chunk: three products with the head instead of the four
needed to recompute it in the backward pass, or two if the head is frozen.

Source: the idea of Liger's fused linear cross-entropy, here in plain matrix products, which run near peak speed on CPUs
and GPUs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lit_sft.models.token_loss import Reference, TokenLoss, loss_and_gradient

_CHUNK_ON_CPU = 256
_CHUNK_ON_GPU = 4096

_ROWS_IN_CACHE = 16
"""Rows of half-precision logits that are widened at once on a CPU, so that the passes over them stay in its cache."""

_COLUMNS_IN_CACHE = 2048
"""Rows of the head whose half-precision gradient is computed at once on a CPU, and added to the sum from its cache."""


def linear_cross_entropy(
    hidden_states: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ids: Tensor,
    shares: Tensor,
    how: TokenLoss = TokenLoss(),
    reference: Reference | None = None,
    rows: Tensor | None = None,
    first: int = 0,
) -> tuple[Tensor, Tensor]:
    """The weighted sum of the losses of tokens, and their negative log-likelihoods.

    Products use autocast's dtype if it is on, else that of the hidden states; sums use float32 or wider.

    Args:
        hidden_states: Hidden states that predict the tokens, (N, D).
        weight: Weight of the head, (V, D).
        bias: Bias of the head, (V,), or None.
        ids: The tokens, (N,) int64.
        shares: Weight of each token in the sum, (N,).
        how: The loss of a token; by default, its negative log-likelihood.
        reference: The reference model, if `how` has a `kl_weight`; it gets no gradients.
        rows: Rows that replace those of the head from `first` on, (R, D), as if they were written into it: new tokens
            that are trained while the rest of the head is frozen. None: none.
        first: Id of the first of these tokens.

    Returns:
        The sum, a scalar with gradients; and (N,) nats without gradients. With N = 0 the gradients are zero.
    """
    device = hidden_states.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_states.dtype
    loss, nll = _LinearCrossEntropy.apply(hidden_states, weight, bias, ids, shares, dtype, how, reference, rows, first)  # type: ignore[no-untyped-call]
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
        how: TokenLoss,
        reference: Reference | None,
        rows: Tensor | None,
        first: int,
    ) -> tuple[Tensor, Tensor]:
        ctx.options, wanted = (dtype, how, reference, first), ctx.needs_input_grad
        ctx.sums, losses, nll = _summed(wanted, hidden_states, weight, bias, rows, ids, shares, *ctx.options)
        ctx.save_for_backward(hidden_states, weight, bias, rows, ids, shares)
        ctx.mark_non_differentiable(nll)
        return (losses * shares).sum(), nll

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        sums, ctx.sums = ctx.sums, None  # scaled in place, and maybe kept as `.grad`: cannot be used again
        if sums is None:  # with retain_graph
            sums, _, _ = _summed(ctx.needs_input_grad, *ctx.saved_tensors, *ctx.options)
        *grads, grad_of_rows = sums.scaled(grad_loss)
        return *grads, None, None, None, None, None, grad_of_rows, None


def _summed(
    wanted: tuple[bool, ...],
    hidden_states: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    rows: Tensor | None,
    ids: Tensor,
    shares: Tensor,
    dtype: torch.dtype,
    how: TokenLoss,
    reference: Reference | None,
    first: int,
) -> tuple[_Sums, Tensor, Tensor]:
    """The sums of gradients over all chunks, and the losses and the nats of the tokens."""
    with torch.autocast(hidden_states.device.type, enabled=False):
        wide = torch.promote_types(dtype, torch.float32)
        # small shares times small probabilities underflow in fp16, so the largest share is scaled to 1
        scale = shares.abs().max().clamp_min(1e-30).to(wide) if len(shares) else shares.new_ones((), dtype=wide)
        new = None if rows is None else rows.to(dtype)
        sums = _Sums(wanted, hidden_states, weight, bias, rows, scale)
        losses, nll = torch.empty(2, len(ids), dtype=wide, device=hidden_states.device)
        head, shift = weight.to(dtype), None if bias is None else bias.to(wide)
        if reference is not None:
            other_head = head if reference.weight is weight else reference.weight.to(dtype)
        size, at_once = _sizes(hidden_states.device, dtype)
        memory = torch.empty(min(size, len(ids)), len(head), dtype=dtype, device=hidden_states.device)
        for start in range(0, len(ids), size):
            chunk = hidden_states[start : start + size].to(dtype)
            logits = torch.mm(chunk, head.T, out=memory[: len(chunk)])
            if new is not None:
                logits[:, first : first + len(new)] = chunk @ new.T
            if reference is not None:
                others = reference.hidden_states[start : start + size].to(dtype) @ other_head.T
            for begin in range(start, start + len(chunk), at_once):
                part = slice(begin, min(begin + at_once, start + len(chunk)))
                inside = slice(begin - start, part.stop - start)
                narrow = logits[inside]
                other = None if reference is None else _widened(others[inside], reference.bias, wide)
                losses[part], nll[part], grad = loss_and_gradient(
                    _widened(narrow, shift, wide), ids[part], shares[part].to(wide) / scale, how, other
                )
                sums.add_bias(grad)
                if narrow.dtype != wide:
                    narrow.copy_(grad)
            sums.add(slice(start, start + size), logits, chunk, head, new, first)
    return sums, losses, nll


def _widened(logits: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The logits in the dtype of the sums, with the bias; the memory is theirs if they have that dtype."""
    wide = logits.to(dtype)
    return wide if bias is None else wide.add_(bias.to(dtype))


def _sizes(device: torch.device, dtype: torch.dtype) -> tuple[int, int]:
    """Rows of logits in memory at once, and how many of them are reduced at once."""
    if device.type != "cpu":
        return _CHUNK_ON_GPU, _CHUNK_ON_GPU
    if torch.promote_types(dtype, torch.float32) == dtype:
        return _CHUNK_ON_CPU, _CHUNK_ON_CPU
    # with fewer rows than threads, torch would split the sum over a row, whose result would depend on their number
    return _CHUNK_ON_CPU, max(_ROWS_IN_CACHE, torch.get_num_threads())


class _Sums:
    """Accumulates the required gradients of hidden states, weight, bias and new rows over the chunks.

    The gradient of the head is as large as the head, so it is written as seldom as possible: the first chunk's is not
    added to zeros, later ones are added by the product itself, and `scaled` works in place.

    Args:
        wanted: Whether gradients of the hidden states, the weight and the bias are required.
        hidden_states: The hidden states, (N, D).
        weight: Weight of the head, (V, D).
        bias: Bias of the head, (V,), or None.
        rows: Rows that replace some of the head, (R, D), or None.
        scale: What the gradients have been divided by, a scalar in the dtype of the sums.
    """

    def __init__(
        self,
        wanted: tuple[bool, ...],
        hidden_states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        rows: Tensor | None,
        scale: Tensor,
    ) -> None:
        self.hidden_states = torch.empty_like(hidden_states) if wanted[0] else None
        self.weight = torch.empty_like(weight, dtype=scale.dtype) if wanted[1] else None
        self.bias = torch.zeros_like(bias, dtype=scale.dtype) if wanted[2] and bias is not None else None
        self.rows = None if rows is None else torch.zeros_like(rows, dtype=scale.dtype)
        self.dtypes = (hidden_states.dtype, weight.dtype, weight.dtype, None if rows is None else rows.dtype)
        self._scale, self._is_empty = scale, True

    def add_bias(self, grad: Tensor) -> None:
        """Add the (n, V) gradient of some logits, in the dtype of the sums, to that of the bias."""
        if self.bias is not None:
            self.bias += grad.sum(0)

    def add(
        self, part: slice, narrow: Tensor, chunk: Tensor, head: Tensor, new: Tensor | None = None, first: int = 0
    ) -> None:
        """Add a chunk: the (n, V) gradient of its logits, its (n, D) hidden states, the (V, D) head, the (R, D) rows.

        With rows, the gradient of their logits is set to 0 in place, because the head's own rows have no part in them.
        """
        of_rows: Tensor | float = 0.0
        if new is not None and self.rows is not None:
            grad = narrow[:, first : first + len(new)]
            self.rows += grad.to(self.rows.dtype).T @ chunk.to(self.rows.dtype)
            of_rows = grad @ new
            grad.zero_()
        if self.hidden_states is not None:
            self.hidden_states[part] = narrow @ head
            if new is not None:
                self.hidden_states[part] += of_rows
        if self.weight is not None:
            self._add_to(self.weight, narrow, chunk)
        self._is_empty = False

    def _add_to(self, total: Tensor, narrow: Tensor, chunk: Tensor) -> None:
        if total.dtype != chunk.dtype:  # half precision: a product cannot add to a wider sum
            size = _COLUMNS_IN_CACHE if total.device.type == "cpu" else len(total)
            for rows, columns in zip(torch.split(total, size), torch.split(narrow, size, dim=1), strict=True):
                product = columns.T @ chunk
                rows.copy_(product) if self._is_empty else rows.add_(product)
        elif self._is_empty:
            torch.mm(narrow.T, chunk, out=total)
        else:
            total.addmm_(narrow.T, chunk)

    def scaled(self, grad_loss: Tensor) -> list[Tensor | None]:
        """The gradients times that of the loss, in the dtypes of their tensors. Changes the sums: call it once."""
        if self._is_empty and self.weight is not None:
            self.weight.zero_()
        factor = grad_loss * self._scale
        sums = (self.hidden_states, self.weight, self.bias, self.rows)
        self.hidden_states = self.weight = self.bias = self.rows = (
            None  # autograd copies a gradient that others refer to
        )
        return [
            None if total is None else total.mul_(factor.to(total.dtype)).to(dtype)
            for total, dtype in zip(sums, self.dtypes, strict=True)
        ]
