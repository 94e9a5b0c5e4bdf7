"""Rotary position embeddings that depend on the length of a document: on its own length, not on its neighbours'.

LongRoPE (Phi-3, say) has two sets of frequencies: one for texts up to the length of the original model, one for longer
ones. transformers chooses by the longest position in the whole batch, so a long document would change the results of
short ones in its row. Here every document gets what it would get alone.

transformers' `dynamic` type changes its frequencies beyond `max_position_embeddings` only, which no text may exceed
here. All other types have fixed frequencies.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

_DEPENDS_ON_LENGTH = "longrope"


def depends_on_length(model: PreTrainedModel) -> bool:
    """Whether equal tokens at equal positions have other embeddings in longer documents."""
    return any(True for _ in _dependent(model))


def use_lengths_of_documents(model: PreTrainedModel) -> None:
    """Make every document's embeddings depend on its own length. Changes the model's modules in place."""
    for module in _dependent(model):
        module.forward = partial(_forward, module, inspect.unwrap(type(module).forward))


def document_lengths(positions: Tensor) -> Tensor:
    """The length of each token's document.

    Args:
        positions: Position of each token in its document, (B, T) int64. A document begins at position 0, or with its
            row.

    Returns:
        (B, T) int64.
    """
    starts = positions == 0
    starts[:, 0] = True
    documents = starts.cumsum(1) - 1
    longest = torch.zeros_like(positions).scatter_reduce(1, documents, positions + 1, "amax")
    return longest.gather(1, documents)


def _dependent(model: PreTrainedModel) -> Iterable[nn.Module]:
    for module in model.modules():
        types = getattr(module, "rope_type", None)
        if _DEPENDS_ON_LENGTH in (types.values() if isinstance(types, dict) else (types,)):
            yield module


@torch.no_grad()
def _forward(
    module: Any,
    embed: Callable[..., tuple[Tensor, Tensor]],
    x: Tensor,
    position_ids: Tensor,
    layer_type: str | None = None,
) -> tuple[Tensor, Tensor]:
    """The cosines and sines of every position, with the frequencies for its document's length.

    Args:
        module: The embedding.
        embed: Its own `forward`, which uses the frequencies it finds in the module.
        x: Gives dtype and device.
        position_ids: (B, T) int64.
        layer_type: The kind of layer, for models with several embeddings.
    """
    given = {} if layer_type is None else {"layer_type": layer_type}
    rope_type, settings = (
        values if layer_type is None else values[layer_type]
        for values in (module.rope_type, module.config.rope_parameters)
    )
    if rope_type != _DEPENDS_ON_LENGTH:
        found: tuple[Tensor, Tensor] = embed(module, x, position_ids, **given)
        return found
    prefix = "" if layer_type is None else f"{layer_type}_"
    limit = settings["original_max_position_embeddings"]
    is_long = (document_lengths(position_ids) > limit).unsqueeze(-1)
    frequencies = getattr(module, f"{prefix}inv_freq")
    short = getattr(module, f"{prefix}original_inv_freq").to(frequencies.device)
    long, _ = ROPE_INIT_FUNCTIONS[_DEPENDS_ON_LENGTH](module.config, x.device, seq_len=limit + 1, layer_type=layer_type)
    found_of = []
    for values in (short, long):
        frequencies.copy_(values)
        found_of.append(embed(module, x, position_ids, **given))
    (short_cos, short_sin), (long_cos, long_sin) = found_of
    return torch.where(is_long, long_cos, short_cos), torch.where(is_long, long_sin, short_sin)
