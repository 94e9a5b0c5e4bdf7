"""Causal attention inside documents, for rows that hold several; registered with transformers, backbones untouched.

A row of three documents needs only the three triangles, not the square:

    a a a . . . . .        without a mask, one call for each document on a CPU (41 ms against 173 ms for the dense
    . . . b b . . .        mask of 1,000 tokens), one call of variable-length flash attention on a GPU
    . . . . . c c c
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from data_modules.batching.batch import Batch

NAME = "lit_sft_documents"

_ARCHITECTURES = ("gpt2", "llama", "mistral", "qwen2", "qwen3")
"""Those whose attention is a softmax of scaled products and nothing else."""


@dataclass(frozen=True, slots=True)
class Documents:
    """Where the documents of a packed row lie.

    Attributes:
        lengths: Tokens of each, on the host.
        boundaries: Their starts and the end of the last, (documents + 1,) int32, on the device.
    """

    lengths: tuple[int, ...]
    boundaries: Tensor


def use_document_attention(model: PreTrainedModel) -> None:
    """Let the model's attention take `documents`; transformers then builds no mask at all.

    Other architectures (with capped scores or sinks, say) keep their own attention, for which transformers builds a
    block-diagonal mask from restarting positions: correct, and slower. Right for training and scoring only, where
    padding stands on the right; see `ordinary_attention`.
    """
    if model.config.model_type in _ARCHITECTURES:
        model.set_attn_implementation(NAME)


@contextmanager
def ordinary_attention(model: PreTrainedModel) -> Iterator[None]:
    """The library's own attention inside, which generation with a cache and left padding needs."""
    before = model.config._attn_implementation
    model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def documents_of(batch: Batch) -> Documents | None:
    """The documents of a packed batch; None where every row is one document."""
    return None if batch.boundaries is None else Documents(batch.lengths, batch.boundaries)


# looking inside, a compiler would see the lengths of documents, and compile anew for every batch
@torch.compiler.disable  # type: ignore[untyped-decorator]
def document_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    documents: Documents | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention that does not cross documents.

    Args:
        module: The attention layer; not used.
        query: (B, heads, T, head width).
        key: (B, key heads, T, head width).
        value: (B, key heads, T, head width).
        attention_mask: Not used: padding on the right is never seen by what counts.
        scaling: Of the scores.
        dropout: Of the attention weights.
        documents: Where the documents lie, for B = 1; None: every row is one.
        sliding_window: Most tokens a token sees, itself included.

    Returns:
        (B, T, heads, head width), and None for the weights.
    """
    lengths = documents.lengths if documents else (query.shape[2],)
    if sliding_window is not None and max(lengths) > sliding_window:
        output = _dense(query, key, value, lengths, scaling, dropout, sliding_window)
    elif documents is None or len(lengths) == 1:
        output = _causal(query, key, value, scaling, dropout)
    elif query.device.type == "cpu":
        output = _one_by_one(query, key, value, lengths, scaling, dropout)
    elif dropout == 0.0 and _has_flash(query):
        return _variable_length(query, key, value, documents, scaling), None
    else:
        output = _dense(query, key, value, lengths, scaling, dropout, None)
    return output.transpose(1, 2), None


AttentionInterface.register(NAME, document_attention)


def _one_by_one(
    query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], scaling: float | None, dropout: float
) -> Tensor:
    parts = zip(*(torch.split(tensor, list(lengths), dim=2) for tensor in (query, key, value)), strict=True)
    return torch.cat([_causal(q, k, v, scaling, dropout) for q, k, v in parts], dim=2)


def _causal(query: Tensor, key: Tensor, value: Tensor, scaling: float | None, dropout: float) -> Tensor:
    if query.device.type != "cpu" or query.dtype not in (torch.bfloat16, torch.float16):
        return _sdpa(query, key, value, scaling, dropout, is_causal=True)
    # half precisions are slower than float32 in the CPU's attention kernel
    with torch.autocast("cpu", enabled=False):
        output = _sdpa(query.float(), key.float(), value.float(), scaling, dropout, is_causal=True)
    return output.to(query.dtype)


def _has_flash(query: Tensor) -> bool:
    """Whether flash attention takes this: half precision, no wide heads, a GPU since Ampere."""
    if query.device.type != "cuda" or query.dtype not in (torch.bfloat16, torch.float16) or query.shape[-1] > 256:
        return False
    return torch.cuda.get_device_capability(query.device) >= (8, 0)


def _variable_length(query: Tensor, key: Tensor, value: Tensor, documents: Documents, scaling: float | None) -> Tensor:
    """(1, heads, T, width) in, (1, T, heads, width) out."""
    from torch.nn.attention.varlen import varlen_attn

    longest = max(documents.lengths)
    # the way to ask for causality changed between torch 2.11 and 2.13
    is_old = "is_causal" in inspect.signature(varlen_attn).parameters
    causal: dict[str, Any] = {"is_causal": True} if is_old else {"window_size": (-1, 0)}
    q, k, v = (_repeated(tensor, query.shape[1])[0].transpose(0, 1) for tensor in (query, key, value))
    output = varlen_attn(q, k, v, documents.boundaries, documents.boundaries, longest, longest, scale=scaling, **causal)
    assert isinstance(output, Tensor)
    return output.unsqueeze(0)


def _repeated(tensor: Tensor, heads: int) -> Tensor:
    """Key and value heads repeated to the number of query heads."""
    return tensor.repeat_interleave(heads // tensor.shape[1], dim=1) if tensor.shape[1] != heads else tensor


def _dense(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: tuple[int, ...],
    scaling: float | None,
    dropout: float,
    window: int | None,
) -> Tensor:
    """Correct everywhere, and slow: the whole square with what lies outside the documents masked."""
    length = query.shape[2]
    device = query.device
    document = torch.repeat_interleave(torch.arange(len(lengths), device=device), torch.tensor(lengths, device=device))
    distance = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)[None, :]
    visible = (document[:, None] == document[None, :]) & (distance >= 0)
    if window is not None:
        visible &= distance < window
    return _sdpa(query, key, value, scaling, dropout, mask=visible)


def _sdpa(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float | None,
    dropout: float,
    *,
    is_causal: bool = False,
    mask: Tensor | None = None,
) -> Tensor:
    grouped = query.shape[1] != key.shape[1]
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=is_causal, scale=scaling, enable_gqa=grouped
    )
