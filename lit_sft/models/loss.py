"""Negative log-likelihood of the target tokens. The only place where labels are shifted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from data_modules.batching.batch import Batch
from data_modules.batching.prefix_tree import PrefixTree
from data_modules.rendering.segments import SegmentKind
from lit_sft.models.adapters import causal_lm
from lit_sft.models.attention import documents_of, shared_documents, shares_prefixes
from lit_sft.models.linear_cross_entropy import linear_cross_entropy
from lit_sft.models.rope import depends_on_length
from lit_sft.models.tree_attention import Stretches

_ROWS_AT_ONCE = 1024
"""Rows of logits in memory at a time when scoring: (1024, 151936) float32 take 0.6 GB."""


def supervised_loss(backbone: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """The weighted sum of the negative log-likelihoods of the batch's targets, each given what precedes it.

    The vocabulary head is applied only to the hidden states that predict targets: if half of the tokens are supervised,
    it costs half as much.

    Args:
        backbone: A causal language model, with or without adapters.
        batch: Rows with N targets.

    Returns:
        The sum, a scalar to call backward on, connected to the graph even with N = 0; and (N,) nats without gradients,
        in the order of `batch.targets`.
    """
    model = causal_lm(backbone)
    shares = batch.weights.flatten()[batch.targets]
    if (tree := _tree(model, batch)) is None:
        return _weighted_sum(model, *_target_states(model, batch), shares)
    hidden_states, ids = _shared_states(model, batch, tree)
    shares = _summed(shares.to(torch.promote_types(hidden_states.dtype, torch.float32)), tree)
    total, nll = _weighted_sum(model, hidden_states, ids, shares)
    return total, nll[tree.repeats]


@torch.no_grad()
def token_nll(backbone: nn.Module, batch: Batch) -> Tensor:
    """Negative log-likelihood of the batch's targets, each given what precedes it in its document, for scoring.

    Args:
        backbone: A causal language model, with or without adapters.
        batch: Rows with N targets.

    Returns:
        (N,) float32, nats, in the order of `batch.targets`.
    """
    model = causal_lm(backbone)
    tree = _tree(model, batch)
    states = _target_states(model, batch) if tree is None else _shared_states(model, batch, tree)
    chunks = zip(*(torch.split(part, _ROWS_AT_ONCE) for part in states), strict=True)
    nll = torch.cat([_cross_entropy(model, *chunk) for chunk in chunks])
    return nll if tree is None else nll[tree.repeats]


def _weighted_sum(model: PreTrainedModel, hidden_states: Tensor, ids: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """The sum with gradients, and the (N,) nats without."""
    head = model.get_output_embeddings()
    if _is_plain(head, model.config):
        return linear_cross_entropy(hidden_states, head.weight, head.bias, ids, shares)
    nll = _cross_entropy(model, hidden_states, ids)
    return (nll * shares).sum(), nll.detach()


def _tree(model: PreTrainedModel, batch: Batch) -> PrefixTree | None:
    """What the documents of the batch share, if computing it once gives the same results."""
    return batch.tree if batch.tree is not None and shares_prefixes(model) else None


def _summed(shares: Tensor, tree: PrefixTree) -> Tensor:
    """The weight of each distinct prediction: those of its targets together."""
    total = shares.new_zeros(len(tree.targets))
    # each adds in a fixed order on its device
    if shares.device.type == "cpu":
        return total.index_add_(0, tree.repeats, shares)
    return total.index_put_((tree.repeats,), shares, accumulate=True)


def _shared_states(model: PreTrainedModel, batch: Batch, tree: PrefixTree) -> tuple[Tensor, Tensor]:
    """The (M, D) hidden states of the distinct predictions, and the (M,) ids of their targets."""
    stretches = Stretches(tree.lengths, tree.parents)
    ids, positions = (tensor.flatten()[tree.computed].unsqueeze(0) for tensor in (batch.input_ids, batch.positions))
    hidden = model.base_model(
        input_ids=ids, position_ids=positions, use_cache=False, documents=shared_documents(stretches, ids.device)
    ).last_hidden_state
    # the first token of a branch is predicted from the last of the beginning it shares with others
    return hidden[0].index_select(0, tree.places[tree.targets - 1]), batch.input_ids.flatten()[tree.targets]


def _target_states(model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """The (N, D) hidden states that predict the targets, and the (N,) ids of the targets."""
    # Padding is on the right, where a causal model's real tokens cannot see it: no attention mask is needed.
    hidden = model.base_model(
        input_ids=batch.input_ids,
        position_ids=_positions(model, batch),
        use_cache=False,
        documents=documents_of(batch),
    ).last_hidden_state
    # the token at t is predicted from the hidden state at t - 1
    return hidden.flatten(0, 1).index_select(0, batch.targets - 1), batch.input_ids.flatten()[batch.targets]


def _positions(model: PreTrainedModel, batch: Batch) -> Tensor:
    """(B, T) positions. Padding would make documents longer for models to which their length matters."""
    is_padded = batch.boundaries is None and depends_on_length(model)
    return batch.positions * (batch.kinds != SegmentKind.PADDING) if is_padded else batch.positions


def _is_plain(head: nn.Module, config: object) -> bool:
    """Whether the logits are just the product with the head's weight: no adapter, quantisation, hook or scaling."""
    scalings = ("logit_scale", "logits_scaling", "final_logit_softcapping")
    is_scaled = any(getattr(config, name, None) is not None for name in scalings)
    return type(head) is nn.Linear and not head._forward_hooks and not head._forward_pre_hooks and not is_scaled


def _cross_entropy(model: nn.Module, hidden_states: Tensor, ids: Tensor) -> Tensor:
    """Compute (N,) nats from (N, D) hidden states and (N,) ids, in float32."""
    logits = _scale(model.get_output_embeddings()(hidden_states).float(), model.config)  # type: ignore[operator]
    return F.cross_entropy(logits, ids, reduction="none")


def _scale(logits: Tensor, config: object) -> Tensor:
    """Scale the logits as some architectures do after the head. Source: Cohere, Granite, Gemma 2 in transformers."""
    if (scale := getattr(config, "logit_scale", None)) is not None:
        logits = logits * scale
    if (divisor := getattr(config, "logits_scaling", None)) is not None:
        logits = logits / divisor
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
        logits = torch.tanh(logits / cap) * cap
    return logits


def logits_of(model: PreTrainedModel, hidden_states: Tensor) -> Tensor:
    """(N, V) logits of (N, D) hidden states, as the model itself computes them."""
    return _scale(model.get_output_embeddings()(hidden_states), model.config)


def sums_of_step(outputs: Mapping[str, Any]) -> Tensor | None:
    """The weighted nats of a training step and their weight, (2,); None if it returned only a loss.

    Args:
        outputs: The result of `LitCausalLM.training_step`, or of an override, which may return only a loss.
    """
    return torch.stack([outputs["nats"], outputs["weight"]]) if "nats" in outputs else None


def mean_of_step(outputs: Mapping[str, Any]) -> Tensor:
    """Mean nats of a training step, or its loss if it returned only that. Stays on its device."""
    mean: Tensor = outputs["nats"] / outputs["weight"] if "nats" in outputs else outputs["loss"]
    return mean
