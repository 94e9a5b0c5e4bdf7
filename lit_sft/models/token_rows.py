"""Trains single rows of a frozen embedding and head, for new tokens beside LoRA adapters.

peft's layer copies the whole matrix with the new rows in each pass, and its gradient is as large: 0.5 GB each for
Qwen2.5-0.5B, in the embedding and in the head. Here only the new rows are computed apart. Adapters are peft's own
otherwise: their weights, files and merging.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.trainable_tokens import TrainableTokensLayer
from torch import Tensor, nn


class TokenRows(TrainableTokensLayer):  # type: ignore[misc]
    """peft's layer for tokens with ids in a row."""

    @property
    def is_used(self) -> bool:
        """Whether the rows of the adapter replace those of the matrix in each pass."""
        return not (self.disable_adapters or self.merged)

    @property
    def rows(self) -> Tensor:
        """The trained rows, (R, D)."""
        (name,) = self.active_adapters
        rows: Tensor = self.trainable_tokens_delta[name]
        return rows

    @property
    def first(self) -> int:
        """The id of the first of their tokens."""
        (name,) = self.active_adapters
        return int(self.token_indices[name][0])

    def forward_adapters(self, x: Tensor, active_adapters: list[str], *args: Any, **kwargs: Any) -> Tensor:
        """The embeddings of (B, T) ids, or the logits of (..., D) hidden states."""
        if not self.is_used:
            unchanged: Tensor = super().forward_adapters(x, active_adapters, *args, **kwargs)
            return unchanged
        result: Tensor = self.base_layer(x)
        if isinstance(self.base_layer, nn.Embedding):
            places = x - self.first
            is_new = (places >= 0) & (places < len(self.rows))
            new = F.embedding(places.clamp(0, len(self.rows) - 1), self.rows)
            if (scale := self._get_embed_scale()) is not None:  # Gemma's
                new = new * scale.to(new.dtype)
            return torch.where(is_new.unsqueeze(-1), new.to(result.dtype), result)
        first, after = self.first, self.first + len(self.rows)
        bias = None if self.base_layer.bias is None else self.base_layer.bias[first:after]
        logits = F.linear(x, self.rows.to(self.base_layer.weight.dtype), bias)
        return torch.cat([result[..., :first], logits, result[..., after:]], dim=-1)


def use_own_rows(adapted: nn.Module) -> None:
    """Replace peft's layers of an adapted model, if the ids of their tokens follow each other; in place."""
    for module in adapted.modules():
        if isinstance(module, TrainableTokensLayer) and all(map(_is_consecutive, module.token_indices.values())):
            module.__class__ = TokenRows


def _is_consecutive(ids: list[int]) -> bool:
    return list(ids) == list(range(ids[0], ids[0] + len(ids)))
