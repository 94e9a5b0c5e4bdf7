"""Chooses the next token of every row: the likeliest, or one that is sampled with the row's own random numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LogitsProcessor, TemperatureLogitsWarper, TopPLogitsWarper

_COLDEST, _HOTTEST = 1e-30, 1e30
"""Temperatures that float32 logits can be divided by; beyond them, samples no longer change."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How the tokens of a row are chosen.

    Attributes:
        temperature: 0 always takes the likeliest token; above 0, tokens are sampled.
        top_p: Sample from the likeliest tokens that make up this share of the probability.
        seed: Determines the random numbers of the row.
        num_likeliest: The likeliest tokens to report for every place. None: report nothing.
    """

    temperature: float
    top_p: float
    seed: int
    num_likeliest: int | None = None


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A generated token, with its log-probability and those of the likeliest tokens in its place.

    Log-probabilities are the model's own, before temperature and top_p, and exclude ids without text.

    Attributes:
        token: Its id.
        logprob: Its natural log-probability.
        likeliest: Ids and log-probabilities, likeliest first; as many as requested.
    """

    token: int
    logprob: float
    likeliest: tuple[tuple[int, float], ...] = ()


class NextToken(LogitsProcessor):  # type: ignore[misc]
    """Changes logits so that each row's highest one is the token to take.

    Args:
        choices: How the tokens of each row are chosen.
        num_known: Ids that the tokenizer knows. The others only pad the vocabulary: they are never chosen.
        generators: The random numbers of each row, as far as they were used. None: from the beginning.
    """

    def __init__(
        self, choices: Sequence[Choice], num_known: int, generators: Sequence[torch.Generator] | None = None
    ) -> None:
        self._choices, self._num_known = choices, num_known
        # its own generator for every row, so that a row does not depend on the others
        self._generators = generators or [torch.Generator().manual_seed(choice.seed) for choice in choices]
        self._sampled: dict[tuple[float, float], list[int]] = {}
        for row, choice in enumerate(choices):
            if choice.temperature > 0:
                # the library's divisor refuses whole numbers such as 1, which JSON and YAML give
                temperature = float(min(max(choice.temperature, _COLDEST), _HOTTEST))
                self._sampled.setdefault((temperature, choice.top_p), []).append(row)
        self._keeps = any(choice.num_likeliest is not None for choice in choices)
        self._logits: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Change the logits of the next token, (B, V) float32."""
        scores = self._known(scores)
        if self._keeps:
            self._logits = scores
        chosen = scores.clone() if self._sampled else scores
        for (temperature, top_p), rows in self._sampled.items():
            likely = TopPLogitsWarper(top_p)(input_ids, TemperatureLogitsWarper(temperature)(input_ids, scores[rows]))
            chosen[rows] = likely + self._noise(rows, scores.shape[1]).to(scores)
        return chosen

    def of(self, rows: Sequence[int]) -> NextToken:
        """The same for some of the rows, which go on with their random numbers."""
        return NextToken([self._choices[row] for row in rows], self._num_known, [self._generators[row] for row in rows])

    def logprob(self, row: int, token: int) -> TokenLogprob | None:
        """The log-probabilities behind the latest token of a row, if they were requested."""
        count = self._choices[row].num_likeliest
        if count is None:
            return None
        assert self._logits is not None, "called before the first token"
        logprobs = torch.log_softmax(self._logits[row].double(), dim=-1)
        values, ids = logprobs.topk(min(count, self._num_known, len(logprobs)))
        return TokenLogprob(token, float(logprobs[token]), tuple(zip(ids.tolist(), values.tolist(), strict=True)))

    def _known(self, scores: Tensor) -> Tensor:
        if scores.shape[1] <= self._num_known:
            return scores
        unknown = torch.full_like(scores[:, self._num_known :], -math.inf)
        return torch.cat([scores[:, : self._num_known], unknown], dim=1)

    def _noise(self, rows: list[int], size: int) -> Tensor:
        """Gumbel noise, (rows, V): the highest sum of logit and noise is a sample."""
        generators = [self._generators[row] for row in rows]
        uniform = torch.stack([torch.rand(size, generator=each, dtype=torch.float64) for each in generators])
        return -torch.log(-torch.log(uniform.clamp_(1e-300, 1 - 1e-16)))
