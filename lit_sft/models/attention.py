"""Causal attention within documents, for packed rows. Registered with transformers; model code stays unchanged.

A row of three documents needs only the three triangles, not the square:

    a a a . . . . .        No mask is needed: on a CPU, one call per document (41 ms, against 173 ms with a dense
    . . . b b . . .        mask, for 1,000 tokens); on a GPU, one call of variable-length flash attention.
    . . . . . c c c

Documents with a common beginning need it only once: see lit_sft/models/tree_attention.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, PreTrainedModel

from data_modules.batching.batch import Batch
from lit_sft.models.architectures import has_dropout, special_attention
from lit_sft.models.attention_gradients import MULTIPLIES_BF16, is_long
from lit_sft.models.rope import depends_on_length, use_lengths_of_documents
from lit_sft.models.tree_attention import KeyGroup, Stretches, attend_on_cpu, gathered, key_groups

NAME = "lit_sft_documents"

_KEYS_AT_ONCE = 32_768
"""Keys of shared beginnings in memory at a time on a GPU: 0.5 GB with 32 heads of width 128 in half precision."""

_KEYS_TO_STORE = 2
"""Keys that a layer stores for its backward pass, for each token of the row; more are gathered again."""


@dataclass(frozen=True, slots=True)
class Documents:
    """The positions of the documents in a packed row.

    Attributes:
        lengths: Tokens in each, on the host.
        boundaries: Their starts and the end of the last, (documents + 1,) int32, on the device.
    """

    lengths: tuple[int, ...]
    boundaries: Tensor


@dataclass(frozen=True, slots=True)
class SharedDocuments:
    """The stretches of a row whose documents share their beginnings.

    Attributes:
        stretches: Their lengths and order, on the host.
        groups: The keys of the stretches, on the device; none on a CPU.
    """

    stretches: Stretches
    groups: tuple[KeyGroup, ...] = ()


def use_document_attention(model: PreTrainedModel) -> None:
    """Make the model's attention accept `documents`, so that transformers builds no mask.

    Rotary embeddings that depend on a text's length depend on the document's from then on, in all architectures.

    Other architectures (with capped scores or recurrent layers, say) keep their own attention, and compute every
    document in a row of its own. For training and scoring only, where padding is on the right; see
    `ordinary_attention`.
    """
    use_lengths_of_documents(model)
    if special_attention(model) is None:
        model.set_attn_implementation(NAME)


@contextmanager
def ordinary_attention(model: PreTrainedModel) -> Iterator[None]:
    """Temporarily use the library's own attention, as generation with a cache and left padding requires."""
    if not has_document_attention(model):
        yield
        return
    before = model.config._attn_implementation
    model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def documents_of(batch: Batch) -> Documents | None:
    """The documents of a packed batch; None if every row is one document."""
    return None if batch.boundaries is None else Documents(batch.lengths, batch.boundaries)


def shared_documents(stretches: Stretches, device: torch.device) -> SharedDocuments:
    """What the layers need of the stretches of a row on this device."""
    return SharedDocuments(stretches, key_groups(stretches, device, _KEYS_AT_ONCE) if device.type != "cpu" else ())


def shares_prefixes(model: PreTrainedModel) -> bool:
    """Whether common beginnings may be computed once: the model can, and has no dropout that is active."""
    return can_share_prefixes(model) and not (model.training and has_dropout(model))


def can_share_prefixes(model: PreTrainedModel) -> bool:
    """Whether the model has our attention, and computes the same for equal beginnings of texts of other lengths."""
    return has_document_attention(model) and not depends_on_length(model)


def has_document_attention(model: PreTrainedModel) -> bool:
    """Whether the model has this attention, not its own."""
    return bool(model.config._attn_implementation == NAME)


def document_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    documents: Documents | SharedDocuments | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention that does not cross documents.

    Args:
        module: The attention layer; not used.
        query: (B, heads, T, head width).
        key: (B, key heads, T, head width).
        value: (B, key heads, T, head width).
        attention_mask: Not used: real tokens never see padding on their right.
        scaling: Factor of the scores.
        dropout: Dropout of the attention weights.
        documents: The documents of the row, or what they share, for B = 1. None: every row is one document.
        sliding_window: Maximum number of tokens that a token attends to, itself included.

    Returns:
        (B, T, heads, head width), and None for the weights.

    Raises:
        RuntimeError: With a cache, whose keys would be taken for those of the first tokens.
    """
    if query.shape[2] != key.shape[2]:
        raise RuntimeError(
            "this model has the attention of training, which knows no cache and no padding on the left. Generate with "
            "`LoadedModel.answer`, or inside `with ordinary_attention(model):` of lit_sft.models.attention."
        )
    dtype, length = _kernel_dtype(value), query.shape[2]
    is_bf16 = value.device.type == "cpu" and value.dtype == torch.bfloat16 and MULTIPLIES_BF16
    is_plain = documents is None and (sliding_window is None or length <= sliding_window)
    with torch.autocast(value.device.type, enabled=False):
        tensors = (query.to(dtype), key.to(dtype), value.to(dtype))
        if is_plain and not (is_bf16 and is_long(length, length)):
            output = _causal(*tensors, scaling, dropout).transpose(1, 2)
        else:
            output = _within_documents(*tensors, documents, scaling, dropout, sliding_window, is_bf16)
    return output.to(value.dtype), None


def _kernel_dtype(value: Tensor) -> torch.dtype:
    """The dtype to compute in. Under autocast, rotary models give float32 queries and keys for half-precision values.

    A GPU's flash kernels need half precision. On CPUs they are slower than in float32: the backward pass 3 times at 100
    tokens. Where documents are long, their gradients have products in bf16: see lit_sft/models/attention_gradients.py.
    """
    return torch.promote_types(value.dtype, torch.float32) if value.device.type == "cpu" else value.dtype


# a compiler would specialise on the lengths of the documents and recompile for every batch
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _within_documents(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    documents: Documents | SharedDocuments | None,
    scaling: float | None,
    dropout: float,
    sliding_window: int | None,
    is_bf16: bool,
) -> Tensor:
    """(B, heads, T, width) in, (B, T, heads, width) out."""
    if isinstance(documents, SharedDocuments):
        assert dropout == 0.0, "documents do not share what dropout drops"
        return _along_tree(query, key, value, documents, scaling, sliding_window, is_bf16).transpose(1, 2)
    lengths = documents.lengths if documents else (query.shape[2],)
    if sliding_window is not None and max(lengths) > sliding_window:
        output = _dense(query, key, value, lengths, scaling, dropout, sliding_window)
    elif is_bf16 and dropout == 0.0 and is_long(max(lengths), max(lengths)):
        output = attend_on_cpu(query, key, value, Stretches(lengths, (-1,) * len(lengths)), scaling, is_bf16=True)
    elif documents is None or len(lengths) == 1:
        output = _causal(query, key, value, scaling, dropout)
    elif query.device.type == "cpu":
        output = _one_by_one(query, key, value, lengths, scaling, dropout)
    elif dropout == 0.0 and _has_flash(query):
        return _variable_length(query, key, value, documents, scaling)
    else:
        output = _dense(query, key, value, lengths, scaling, dropout, None)
    return output.transpose(1, 2)


AttentionInterface.register(NAME, document_attention)


def _along_tree(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    documents: SharedDocuments,
    scaling: float | None,
    window: int | None,
    is_bf16: bool,
) -> Tensor:
    """(1, heads, C, width) in and out."""
    stretches = documents.stretches
    if window is not None and stretches.longest <= window:
        window = None
    if query.device.type == "cpu" and window is None:
        return attend_on_cpu(query, key, value, stretches, scaling, is_bf16=is_bf16)
    if window is None and _has_flash(query):
        return _variable_keys(query, key, value, documents, scaling)
    return _sdpa(query, key, value, scaling, 0.0, mask=stretches.visible(query.device, window))


def _one_by_one(
    query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], scaling: float | None, dropout: float
) -> Tensor:
    parts = zip(*(torch.split(tensor, list(lengths), dim=2) for tensor in (query, key, value)), strict=True)
    return torch.cat([_causal(q, k, v, scaling, dropout) for q, k, v in parts], dim=2)


def _causal(query: Tensor, key: Tensor, value: Tensor, scaling: float | None, dropout: float) -> Tensor:
    return _sdpa(query, key, value, scaling, dropout, is_causal=True)


def _has_flash(query: Tensor) -> bool:
    """Whether flash attention supports this: half precision, heads up to 256 wide, Ampere or newer."""
    if query.device.type != "cuda" or query.dtype not in (torch.bfloat16, torch.float16) or query.shape[-1] > 256:
        return False
    return torch.cuda.get_device_capability(query.device) >= (8, 0)


def _variable_length(query: Tensor, key: Tensor, value: Tensor, documents: Documents, scaling: float | None) -> Tensor:
    """(1, heads, T, width) in, (1, T, heads, width) out."""
    longest = max(documents.lengths)
    q, k, v = (_repeated(tensor, query.shape[1])[0].transpose(0, 1) for tensor in (query, key, value))
    return _flash(q, k, v, documents.boundaries, documents.boundaries, longest, longest, scaling)


def _variable_keys(
    query: Tensor, key: Tensor, value: Tensor, documents: SharedDocuments, scaling: float | None
) -> Tensor:
    """(1, heads, C, width) in and out. What this stores for the backward pass grows with C only.

    A beginning is gathered once for each of its branches. If that makes many keys, they are gathered again in the
    backward pass.
    """
    # float32: the gradients of the groups are summed
    exact = torch.promote_types(key.dtype, torch.float32)
    q, k, v = query[0].transpose(0, 1), key[0].transpose(0, 1).to(exact), value[0].transpose(0, 1).to(exact)
    num_keys = sum(len(group.places) for group in documents.groups)
    attend: Callable[..., Tensor] = _attend_group
    if num_keys > _KEYS_TO_STORE * len(q):
        attend = partial(checkpoint, _attend_group, use_reentrant=False, preserve_rng_state=False)
    outputs = [attend(q[group.queries], k, v, group, scaling) for group in documents.groups]
    return torch.cat(outputs, dim=1).transpose(1, 2)


def _attend_group(query: Tensor, key: Tensor, value: Tensor, group: KeyGroup, scaling: float | None) -> Tensor:
    """(n, heads, width) queries, (C, key heads, width) keys and values in, (1, n, heads, width) out.

    The last query of a stretch sees all of its keys, the one before one less.
    """
    k, v = (_repeated(gathered(tensor, group.places).to(query.dtype), query.shape[1]) for tensor in (key, value))
    bounds = (group.query_bounds, group.key_bounds)
    return _flash(query, k, v, *bounds, group.most_queries, group.most_keys, scaling)


def _flash(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_bounds: Tensor,
    key_bounds: Tensor,
    most_queries: int,
    most_keys: int,
    scaling: float | None,
) -> Tensor:
    """(T, heads, width) in, (1, T, heads, width) out."""
    from torch.nn.attention.varlen import varlen_attn

    # the argument for causal attention changed between torch 2.11 and 2.13
    is_old = "is_causal" in inspect.signature(varlen_attn).parameters
    causal: dict[str, Any] = {"is_causal": True} if is_old else {"window_size": (-1, 0)}
    output = varlen_attn(query, key, value, query_bounds, key_bounds, most_queries, most_keys, scale=scaling, **causal)
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
    """Works everywhere, but slow: the full square, masked outside the documents."""
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
