"""Log-probabilities of the tokens of a prompt, as `answer_requests` reports those of an answer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from lit_sft.models.adapters import causal_lm
from lit_sft.models.generation import evaluating, lock_of, num_known
from lit_sft.models.loaded import LoadedModel
from lit_sft.models.loss import logits_of
from lit_sft.models.next_token import TokenLogprob

_ROWS = 64
"""Places whose logits are held in memory at a time: all those of a long prompt may take tens of gigabytes."""


def prompt_logprobs(model: LoadedModel, ids: Sequence[int], num_likeliest: int) -> list[TokenLogprob | None]:
    """Score a prompt. One thread at a time uses a model; others wait.

    Args:
        model: The model.
        ids: Token ids, at least one.
        num_likeliest: The likeliest tokens to report for each place.

    Returns:
        One for each token; None for the first, which nothing predicts.
    """
    size, backbone = num_known(model.tokenizer), causal_lm(model.backbone)
    scored: list[TokenLogprob | None] = [None]
    with lock_of(model.backbone), evaluating(model.backbone), torch.no_grad():
        input_ids = torch.tensor([list(ids)], device=model.device)
        hidden_states = backbone.base_model(input_ids=input_ids, use_cache=False).last_hidden_state[0, :-1]
        for start in range(0, len(hidden_states), _ROWS):
            chunk = logits_of(backbone, hidden_states[start : start + _ROWS]).double()
            chunk[:, size:] = -math.inf  # ids that only pad the vocabulary are never chosen
            logprobs = torch.log_softmax(chunk, dim=-1)
            targets = torch.tensor(ids[start + 1 : start + 1 + len(chunk)], device=logprobs.device)
            chosen = logprobs.gather(1, targets[:, None])[:, 0]
            values, likeliest = logprobs.topk(min(num_likeliest, size, logprobs.shape[1]))
            rows = zip(targets.tolist(), chosen.tolist(), likeliest.tolist(), values.tolist(), strict=True)
            scored += [TokenLogprob(token, value, tuple(zip(*top, strict=True))) for token, value, *top in rows]
    return scored
