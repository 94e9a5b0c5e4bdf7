"""Log-probabilities of the tokens of a prompt, as `answer_requests` reports those of an answer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from lit_sft.models.generation import evaluating, lock_of, num_known
from lit_sft.models.loaded import LoadedModel
from lit_sft.models.next_token import TokenLogprob

_ROWS = 64
"""Places whose log-probabilities are held in memory at a time."""


def prompt_logprobs(model: LoadedModel, ids: Sequence[int], num_likeliest: int) -> list[TokenLogprob | None]:
    """Score a prompt. One thread at a time uses a model; others wait.

    Args:
        model: The model.
        ids: Token ids, at least one.
        num_likeliest: The likeliest tokens to report for each place.

    Returns:
        One for each token; None for the first, which nothing predicts.
    """
    size = num_known(model.tokenizer)
    scored: list[TokenLogprob | None] = [None]
    with lock_of(model.backbone), evaluating(model.backbone), torch.no_grad():
        logits = model.backbone(input_ids=torch.tensor([list(ids)], device=model.device)).logits[0, :-1]
        for start in range(0, len(logits), _ROWS):
            chunk = logits[start : start + _ROWS].double()
            chunk[:, size:] = -math.inf  # ids that only pad the vocabulary are never chosen
            logprobs = torch.log_softmax(chunk, dim=-1)
            targets = torch.tensor(ids[start + 1 : start + 1 + len(chunk)], device=logprobs.device)
            chosen = logprobs.gather(1, targets[:, None])[:, 0]
            values, likeliest = logprobs.topk(min(num_likeliest, size, logprobs.shape[1]))
            rows = zip(targets.tolist(), chosen.tolist(), likeliest.tolist(), values.tolist(), strict=True)
            scored += [TokenLogprob(token, value, tuple(zip(*top, strict=True))) for token, value, *top in rows]
    return scored
