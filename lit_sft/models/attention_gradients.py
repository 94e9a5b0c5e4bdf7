"""Gradients of attention on a CPU under bf16: in blocks of queries, four of five matrix products in bf16.

torch's kernels spend two thirds of their time in the backward pass, in float32, and no less in bf16. Here the scores
are computed again in float32, as in the forward pass, so that bf16 only rounds the factors and results of the products
that follow from them: each error is relative to a gradient, and none is inside an exponential.

Source: FlashAttention's backward pass (arXiv 2205.14135); keys without their mean as in SageAttention (arXiv
2410.02367), there for the scores.
"""

from __future__ import annotations

import torch
from torch import Tensor

LONG = 256
"""Queries and keys from which blocks are faster than torch's kernel, whatever the heads (benchmarks/attention.py)."""

_CAUSAL_ROWS = 64
_ROWS = 128
"""Queries of a block, whose scores stay in a core's cache. Causal blocks are smaller: less of them is hidden."""


MULTIPLIES_BF16 = torch.cpu._is_avx512_bf16_supported()
"""Whether this CPU has instructions for matrix products in bf16, from which the gradients gain their speed."""


def is_long(queries: int, keys: int) -> bool:
    """Whether blocks of products are faster than torch's kernel."""
    return min(queries, keys) >= LONG


def centred(query: Tensor, key: Tensor, normaliser: Tensor, scaling: float | None) -> tuple[Tensor, Tensor]:
    """Keys without their mean, and the normaliser that goes with them: the gradients are the same.

    The gradients of a query's scores sum to zero, so what all keys have in common drops out of its gradient. In bf16
    they no longer do, and models with biases have keys that differ less than they have in common.

    Args:
        query: (B, heads, T, width).
        key: All keys of the row, (B, key heads, T, width).
        normaliser: (B, heads, T).
        scaling: Factor of the scores. None: one over the square root of the width.
    """
    mean = key.mean(2, keepdim=True)
    repeated = mean.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    return key - mean, normaliser - (query @ repeated.mT).squeeze(-1) * _factor(query, scaling)


def _factor(query: Tensor, scaling: float | None) -> float:
    return query.shape[-1] ** -0.5 if scaling is None else scaling


def backward_in_blocks(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    normaliser: Tensor,
    is_causal: bool,
    scaling: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of attention to some keys, or their share if the queries also attend to others.

    Call it without autocast, which would narrow the scores.

    Args:
        grad: Gradient of the output, (B, heads, T, width).
        query: (B, heads, T, width), float32.
        key: (B, key heads, K, width), float32.
        value: (B, key heads, K, width), float32; exact in bf16.
        output: Attention to all keys, (B, heads, T, width), float32.
        normaliser: Logarithm of the sum of exponentials of the scores of all keys, (B, heads, T), float32.
        is_causal: Whether query t sees keys up to t only, for T = K.
        scaling: Factor of the scores. None: one over the square root of the width.

    Returns:
        Those of query, key and value, float32.
    """
    heads, size, factor = key.shape[1], key.shape[2], _factor(query, scaling)
    all_queries, grads = _by_key_head(query * factor, heads), _by_key_head(grad.bfloat16(), heads)
    shifts = _by_key_head(normaliser.unsqueeze(-1), heads)
    deltas = _by_key_head((grad * output).sum(-1, keepdim=True), heads)
    keys, values = key.flatten(0, 1), value.flatten(0, 1).bfloat16()
    narrow_keys = keys.bfloat16()
    query_grad, key_grad, value_grad = torch.empty_like(all_queries), torch.zeros_like(keys), torch.zeros_like(keys)
    rows = _CAUSAL_ROWS if is_causal else _ROWS
    for start in range(0, query.shape[2], rows):
        block = slice(start, start + rows)
        seen = min(block.stop, size) if is_causal else size
        narrow_grads = _rows(grads, block)
        queries = _rows(all_queries, block)
        weights = (queries @ keys[:, :seen].mT).sub_(_rows(shifts, block)).exp_()
        if is_causal:
            _hide_later(weights, start, seen)
        value_grad[:, :seen] += weights.bfloat16().mT @ narrow_grads
        scores_grad = (narrow_grads @ values[:, :seen].mT).float().sub_(_rows(deltas, block)).mul_(weights).bfloat16()
        product = scores_grad @ narrow_keys[:, :seen]
        query_grad[:, :, block] = product.view_as(query_grad[:, :, block])
        key_grad[:, :seen] += scores_grad.mT @ queries.bfloat16()
    return query_grad.mul_(factor).view_as(query), key_grad.view_as(key), value_grad.view_as(value)


def _by_key_head(tensor: Tensor, key_heads: int) -> Tensor:
    """(B, heads, T, n) to (B * key heads, heads of each, T, n)."""
    return tensor.reshape(tensor.shape[0] * key_heads, -1, *tensor.shape[2:])


def _rows(tensor: Tensor, block: slice) -> Tensor:
    """The block's rows of all heads that share a key head, (B * key heads, rows, n)."""
    return tensor[:, :, block].flatten(1, 2)


def _hide_later(weights: Tensor, start: int, seen: int) -> None:
    """Set the weights of keys after the query to zero, in place; they may be infinite."""
    rows = seen - start
    hidden = torch.ones(rows, rows, dtype=torch.bool).triu(1)
    weights.view(len(weights), -1, rows, seen)[..., start:].masked_fill_(hidden, 0.0)
