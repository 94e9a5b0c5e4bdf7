"""Gives a pretrained model rows for tokens that were added to its tokenizer."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from data_modules.encoding.tokenizers import num_ids
from data_modules.errors import UserError
from data_modules.wording import listed

_ROWS_AT_ONCE = 8192


def ids_of_new_tokens(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str]) -> list[int]:
    """The ids of tokens that were added to a tokenizer.

    Raises:
        UserError: If it lacks one of them, or has other tokens after them.
    """
    vocabulary = tokenizer.get_added_vocab()
    if missing := [token for token in tokens if token not in vocabulary]:
        raise UserError(
            f"the model gets new tokens that the tokenizer of the data does not have: {listed(missing)}. Give the data "
            "module the same `add_tokens` and `add_special_tokens`."
        )
    ids, size = [vocabulary[token] for token in tokens], num_ids(tokenizer)
    if sorted(ids) != list(range(size - len(ids), size)):
        raise UserError(
            f"the new tokens {listed(tokens)} are not the last ones of the tokenizer. Use the tokenizer that was "
            "saved with the model, or the one before any tokens were added."
        )
    return ids


def add_rows(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> None:
    """Give a model an embedding and a row of the head for each new token: the mean of those of all other tokens.

    Rows that only padded the vocabulary are used first; Qwen2.5 has 271 of them. So are the biases of a head. Source of
    the mean: Hewitt, "Initializing New Word Embeddings for Pretrained Language Models" (2021).

    Args:
        model: Pretrained, without adapters; changed in place.
        tokenizer: With the new tokens.
        ids: Of the new tokens, which follow all others.
    """
    num_known, layers = min(ids), (model.get_input_embeddings(), model.get_output_embeddings())
    if num_ids(tokenizer) > layers[0].weight.shape[0]:
        model.resize_token_embeddings(num_ids(tokenizer), mean_resizing=False)
        layers = (model.get_input_embeddings(), model.get_output_embeddings())
    with torch.no_grad():
        means = [_mean(layer.weight, num_known) for layer in layers]  # before either changes: they may be tied
        for layer, mean in zip(layers, means, strict=True):
            layer.weight[ids] = mean
        if (bias := getattr(layers[1], "bias", None)) is not None:
            bias[ids] = bias[:num_known].double().mean().to(bias.dtype)


def rows_to_train(model: PreTrainedModel, ids: Sequence[int], saved: Collection[str]) -> dict[str, list[int]] | None:
    """The rows that adapters train besides their matrices, as peft's `trainable_token_indices`.

    Args:
        model: Without adapters.
        ids: Of the new tokens.
        saved: Names of layers that are trained in full, or the ends of their names.

    Returns:
        For the embedding, and the head if it has weights of its own, its name and the ids; None if there are none.

    Raises:
        UserError: If the head has biases, which peft would leave out.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    names = {layer: name for name, layer in model.named_modules() if layer in (embedding, head)}
    wanted = {layer: name for layer, name in names.items() if not any(f".{name}".endswith(f".{end}") for end in saved)}
    if head.weight is embedding.weight:  # either name trains both
        wanted = {embedding: names[embedding]} if len(wanted) == 2 else {}
    if not ids or not wanted:
        return None
    if getattr(head, "bias", None) is not None:
        raise UserError(
            f"--model.backbone.tuning lora with new tokens: the head of {model.config.model_type} has biases, and peft "
            "trains rows of heads without them only. Train all weights: `--model.backbone.tuning full`."
        )
    return {name: list(ids) for name in wanted.values()}


def _mean(weight: Tensor, num_rows: int) -> Tensor:
    """The mean of the first rows of a matrix, summed in float64."""
    parts = torch.split(weight[:num_rows], _ROWS_AT_ONCE)
    total = sum((part.double().sum(0) for part in parts), torch.zeros(weight.shape[1], dtype=torch.float64))
    return (total / num_rows).to(weight.dtype)
