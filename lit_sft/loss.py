"""Negative log-likelihood of the target tokens. The only place that shifts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_modules.batch import Batch
from lit_sft.backbone import causal_lm

_ROWS_AT_ONCE = 1024
"""Rows of logits alive at a time when nothing is kept for a backward pass: (1024, 151936) float32 are 0.6 GB."""


def token_nll(backbone: nn.Module, batch: Batch) -> Tensor:
    """Negative log-likelihood of the batch's targets, each given the tokens before it in its document.

    The vocabulary head is applied to the hidden states of these tokens only; a batch in which half of the tokens are
    supervised pays for half of the head.

    Args:
        backbone: A causal language model, with or without adapters.
        batch: B rows of T tokens with N targets.

    Returns:
        (N,) float32, nats, in the order of `batch.targets`. With N = 0 it still is part of the graph.
    """
    model = causal_lm(backbone)
    # Padding stands on the right, where a causal model's real tokens cannot see it: no attention mask is needed.
    hidden = model.base_model(input_ids=batch.input_ids, use_cache=False).last_hidden_state
    # the token at t is predicted from the hidden state at t - 1
    rows = hidden.flatten(0, 1).index_select(0, batch.targets - 1)
    ids = batch.input_ids.flatten()[batch.targets]
    if torch.is_grad_enabled():
        return _cross_entropy(model, rows, ids)
    chunks = zip(torch.split(rows, _ROWS_AT_ONCE), torch.split(ids, _ROWS_AT_ONCE), strict=True)
    return torch.cat([_cross_entropy(model, *chunk) for chunk in chunks])


def _cross_entropy(model: nn.Module, rows: Tensor, ids: Tensor) -> Tensor:
    """(N, D) hidden states and (N,) ids to (N,) nats, reduced in float32."""
    logits = _scale(model.get_output_embeddings()(rows).float(), model.config)  # type: ignore[operator]
    return F.cross_entropy(logits, ids, reduction="none")


def _scale(logits: Tensor, config: object) -> Tensor:
    """What some architectures do to their logits after the head. Source: Cohere, Granite, Gemma 2 in transformers."""
    if (scale := getattr(config, "logit_scale", None)) is not None:
        logits = logits * scale
    if (divisor := getattr(config, "logits_scaling", None)) is not None:
        logits = logits / divisor
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
        logits = torch.tanh(logits / cap) * cap
    return logits
