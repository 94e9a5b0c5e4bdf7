"""Negative log-likelihood of the target tokens. The only place where labels are shifted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from data_modules.batching.batch import Batch
from data_modules.batching.packing import length_groups
from data_modules.batching.prefix_tree import PrefixTree
from data_modules.errors import UserError
from data_modules.rendering.segments import SegmentKind
from lit_sft.models.adapters import causal_lm, head_and_rows
from lit_sft.models.architectures import special_attention
from lit_sft.models.attention import documents_of, has_document_attention, shared_documents, shares_prefixes
from lit_sft.models.linear_cross_entropy import linear_cross_entropy
from lit_sft.models.reference import has_reference, reference_model
from lit_sft.models.rope import depends_on_length
from lit_sft.models.token_loss import Reference, TokenLoss, token_losses
from lit_sft.models.tree_attention import Stretches

_ROWS_AT_ONCE = 1024
"""Rows of logits in memory at a time when scoring: (1024, 151936) float32 take 0.6 GB."""


_PLAIN = TokenLoss()


def supervised_loss(backbone: nn.Module, batch: Batch, how: TokenLoss = _PLAIN) -> tuple[Tensor, Tensor]:
    """The weighted sum of the losses of the batch's targets, each predicted from what precedes it.

    The vocabulary head is applied only to the hidden states that predict targets: if half of the tokens are supervised,
    it costs half as much.

    Args:
        backbone: A causal language model, with or without adapters.
        batch: Rows with N targets.
        how: The loss of a target; by default, its negative log-likelihood.

    Returns:
        The sum, a scalar to call backward on, connected to the graph even with N = 0; and the (N,) negative
        log-likelihoods, nats without gradients, in the order of `batch.targets`.
    """
    model = causal_lm(backbone)
    tree = _tree(model, batch)
    compared = _reference_states(backbone, batch, tree) if how.kl_weight else None
    hidden_states, ids = _states(model, batch, tree)
    shares = batch.weights.flatten()[batch.targets]
    if tree is not None:
        shares = _summed(shares.to(torch.promote_types(hidden_states.dtype, torch.float32)), tree)
    total, nll = _weighted_sum(backbone, hidden_states, ids, shares, how, compared)
    return total, nll if tree is None else nll[tree.repeats]


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
    nll = _scored(model, *_states(model, batch, tree))
    return nll if tree is None else nll[tree.repeats]


def reference_nll(backbone: nn.Module, batch: Batch) -> Tensor | None:
    """The same under the reference model; None if there is none."""
    if not has_reference(backbone):
        return None
    with reference_model(backbone) as other:
        return token_nll(other, batch)


def loss_of_nll(backbone: nn.Module, batch: Batch, loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Any function of the negative log-likelihoods of the batch's targets.

    The head is applied twice: first without gradients, for the nats. The derivatives of the function by them are the
    weights of a second, weighted sum, whose gradient is that of the function. So the logits of all targets are never
    in memory together.

    Args:
        backbone: A causal language model, with or without adapters.
        batch: Rows with N targets.
        loss: A differentiable function of (N,) nats.

    Returns:
        Its value, a scalar to call backward on, connected to the graph even with N = 0; and the (N,) nats without
        gradients, in the order of `batch.targets`.
    """
    model = causal_lm(backbone)
    tree = _tree(model, batch)
    hidden_states, ids = _states(model, batch, tree)
    with torch.no_grad():
        nll = _scored(model, hidden_states, ids)
        nll = nll if tree is None else nll[tree.repeats]
    with torch.enable_grad():
        point = nll.detach().requires_grad_()
        value = loss(point)
        (shares,) = torch.autograd.grad(value, point)
    shares = shares if tree is None else _summed(shares, tree)
    total, _ = _weighted_sum(backbone, hidden_states, ids, shares, _PLAIN, None)
    return value.detach() + (total - total.detach()), nll


def _scored(model: PreTrainedModel, hidden_states: Tensor, ids: Tensor) -> Tensor:
    """The (N,) nats of (N, D) hidden states, some rows of logits at a time."""
    chunks = zip(torch.split(hidden_states, _ROWS_AT_ONCE), torch.split(ids, _ROWS_AT_ONCE), strict=True)
    return torch.cat([_cross_entropy(model, *chunk) for chunk in chunks])


def _weighted_sum(
    backbone: nn.Module, hidden_states: Tensor, ids: Tensor, shares: Tensor, how: TokenLoss, compared: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The sum with gradients, and the (N,) nats without.

    Args:
        backbone: The model.
        hidden_states: Its hidden states that predict the tokens, (N, D).
        ids: The tokens, (N,).
        shares: Their weights, (N,).
        how: The loss of a token.
        compared: The hidden states of the reference model, (N, D); None if it is not compared with one.
    """
    model = causal_lm(backbone)
    head, rows = head_and_rows(model)
    if _is_plain(head, model.config):
        reference = None if compared is None else _plain_reference(backbone, compared)
        new = (rows.rows, rows.first) if rows is not None and rows.is_used else (None, 0)
        return linear_cross_entropy(hidden_states, head.weight, head.bias, ids, shares, how, reference, *new)
    losses, nll = _chunked_losses(backbone, hidden_states, ids, how, compared)
    return (losses * shares).sum(), nll


def _plain_reference(backbone: nn.Module, hidden_states: Tensor) -> Reference:
    with reference_model(backbone) as other:
        head = causal_lm(other).get_output_embeddings()
        return Reference(hidden_states, head.weight, head.bias)


def _chunked_losses(
    backbone: nn.Module, hidden_states: Tensor, ids: Tensor, how: TokenLoss, compared: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The (N,) losses and nats under a head that is more than a product. Logits are recomputed in the backward pass."""

    def _losses(states: Tensor, targets: Tensor, others: Tensor | None) -> tuple[Tensor, Tensor]:
        reference = None
        if others is not None:
            with reference_model(backbone) as other:
                reference = _wide_logits(causal_lm(other), others)
        return token_losses(_wide_logits(causal_lm(backbone), states), targets, how, reference)

    rows, targets = torch.split(hidden_states, _ROWS_AT_ONCE), torch.split(ids, _ROWS_AT_ONCE)
    others = [None] * len(rows) if compared is None else torch.split(compared, _ROWS_AT_ONCE)
    parts = [checkpoint(_losses, *part, use_reentrant=False) for part in zip(rows, targets, others, strict=True)]
    losses, nll = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return losses, nll


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


def _states(model: PreTrainedModel, batch: Batch, tree: PrefixTree | None) -> tuple[Tensor, Tensor]:
    """The hidden states that predict the targets, and the ids of the targets: once for each distinct prediction."""
    return _target_states(model, batch) if tree is None else _shared_states(model, batch, tree)


def _reference_states(backbone: nn.Module, batch: Batch, tree: PrefixTree | None) -> Tensor:
    """The same hidden states of the reference model, without gradients."""
    with reference_model(backbone) as other:
        return _states(causal_lm(other), batch, tree)[0]


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
    # the token at t is predicted from the hidden state at t - 1
    return _all_states(model, batch).index_select(0, batch.targets - 1), batch.input_ids.flatten()[batch.targets]


def _all_states(model: PreTrainedModel, batch: Batch) -> Tensor:
    """The (B * T, D) hidden states of all tokens."""
    # Padding is on the right, where a causal model's real tokens cannot see it: no attention mask is needed.
    if has_document_attention(model):
        given = {"position_ids": _positions(model, batch), "documents": documents_of(batch)}
        hidden = model.base_model(input_ids=batch.input_ids, use_cache=False, **given).last_hidden_state
    elif batch.boundaries is None:
        given = {"position_ids": _positions(model, batch)} if depends_on_length(model) else {}
        hidden = model.base_model(input_ids=batch.input_ids, use_cache=False, **given).last_hidden_state
    else:
        return _states_of_own_rows(model, batch.input_ids[0], batch.lengths)
    return hidden.flatten(0, 1)  # type: ignore[no-any-return]


def _states_of_own_rows(model: PreTrainedModel, ids: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """The (T, D) hidden states of a packed row, with each document in a row of its own.

    For models that would let documents see one another in one row, by recurrent layers, say. The padded batches are
    not larger than the row, except for a document as long as it.
    """
    documents: list[Tensor] = list(torch.split(ids, list(lengths)))
    states: dict[int, Tensor] = {}
    # padding would make a document longer
    groups = [[n] for n in range(len(lengths))] if depends_on_length(model) else length_groups(lengths, len(ids))
    for group in groups:
        rows = pad_sequence([documents[number] for number in group], batch_first=True)
        hidden = model.base_model(input_ids=rows, use_cache=False).last_hidden_state
        states |= {number: hidden[row, : lengths[number]] for row, number in enumerate(group)}
    return torch.cat([states[number] for number in range(len(lengths))])


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
    """Compute (N,) nats from (N, D) hidden states and (N,) ids, in float32 or wider."""
    return F.cross_entropy(_wide_logits(model, hidden_states), ids, reduction="none")


def _wide_logits(model: nn.Module, hidden_states: Tensor) -> Tensor:
    """(N, V) logits of (N, D) hidden states, scaled in float32 or wider."""
    logits = model.get_output_embeddings()(hidden_states)  # type: ignore[operator]
    return _scale(logits.to(torch.promote_types(logits.dtype, torch.float32)), model.config)


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


@torch.no_grad()
def check_logits(model: PreTrainedModel) -> None:
    """Refuse a model whose logits are not the head's, scaled in a known way. Architectures on our list are tested.

    Raises:
        UserError: If the loss would be computed from other logits than the model's own.
    """
    if (reason := special_attention(model)) is None:
        return
    is_training = model.training
    ids = torch.arange(3).unsqueeze(0)
    try:
        states = model.eval().base_model(input_ids=ids, use_cache=False).last_hidden_state
        ours, own = logits_of(model, states), model(input_ids=ids, use_cache=False).logits
        is_same = ours.shape == own.shape and torch.allclose(ours.float(), own.float(), rtol=1e-3, atol=1e-4)
    except (AttributeError, TypeError, ValueError, RuntimeError, IndexError):  # a model of another shape
        is_same = False
    finally:
        model.train(is_training)
    if not is_same:
        raise UserError(
            f"--model.backbone: models of type {model.config.model_type} are not supported: their logits are not the "
            f"product of hidden states and vocabulary head ({reason}). Use a model whose type is in docs/models.md."
        )


def sums_of_step(outputs: Mapping[str, Any], of: Literal["total", "nats"] = "nats") -> Tensor | None:
    """The weighted sum of a training step and its weight, (2,); None if it returned only a loss.

    Args:
        outputs: The result of `LitCausalLM.training_step`, or of an override, which may return only a loss.
        of: `total`: what is minimised; `nats`: the negative log-likelihood, whatever is minimised.
    """
    weight = "weight" if of == "total" else "nll_weight"
    return torch.stack([outputs[of], outputs[weight]]) if of in outputs else None


def mean_of_step(outputs: Mapping[str, Any]) -> Tensor:
    """The mean loss of a training step, or its loss if it returned only that. Stays on its device."""
    mean: Tensor = outputs["total"] / outputs["weight"] if "total" in outputs else outputs["loss"]
    return mean
