"""Generation: the only sampling code. Prompts are token ids, rendered by the template used in training."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from data_modules.encoding.tokenizers import num_ids
from data_modules.errors import UserError
from lit_sft.models.adapters import causal_lm
from lit_sft.models.attention import ordinary_attention


@dataclass(frozen=True)
class GenerationSettings:
    """How to generate answers.

    Attributes:
        max_new_tokens: Maximum number of tokens in an answer.
        temperature: 0 always takes the likeliest token; above 0, tokens are sampled.
        top_p: Sample from the likeliest tokens that make up this share of the probability.
        batch_size: Prompts per batch.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    batch_size: int = 16

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} {getattr(self, name)}: expected at least 1.")
        if not self.temperature >= 0:
            raise UserError(f"temperature {self.temperature:g}: expected at least 0.")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p {self.top_p:g}: expected more than 0, at most 1.")


@dataclass(frozen=True, slots=True)
class Generated:
    """One generated answer.

    Attributes:
        text: The decoded answer, without the end token.
        num_tokens: Tokens generated, including the end token.
        ended: Whether the model ended the answer itself.
    """

    text: str
    num_tokens: int
    ended: bool


def generate(
    backbone: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    tokenizer: PreTrainedTokenizerBase,
    end_token_id: int,
    settings: GenerationSettings | None = None,
    seed: int = 0,
) -> list[Generated]:
    """Answer every prompt.

    The model's mode, its caches and the random state are restored. Answers do not depend on batching: sampling for a
    prompt depends only on the seed and the prompt.

    Args:
        backbone: A causal language model, with or without adapters.
        prompts: Token ids, at least one per prompt.
        tokenizer: Decodes the answers.
        end_token_id: Generation stops on it.
        settings: How to generate. None: the defaults.
        seed: Determines the sampling if the temperature is above 0.

    Raises:
        UserError: If a prompt leaves no room for an answer.
    """
    settings = settings or GenerationSettings()
    results: dict[int, Generated] = {}
    known = num_ids(tokenizer)
    rooms = [_room(backbone, len(prompt), settings.max_new_tokens) for prompt in prompts]
    with undisturbed(backbone), _bare(causal_lm(backbone)), torch.no_grad():
        for rows in _batches([len(prompt) for prompt in prompts], rooms, settings.batch_size):
            chosen = [prompts[row] for row in rows]
            draws = _draws(settings, [_seed_of(prompt, seed) for prompt in chosen])
            steps = LogitsProcessorList([_OnlyKnown(known), *draws])
            answers = _generate_batch(backbone, chosen, end_token_id, steps, max_new_tokens=rooms[rows[0]])
            results |= zip(rows, (_decode(ids, tokenizer, end_token_id) for ids in answers), strict=True)
    return [results[index] for index in range(len(prompts))]


def _batches(lengths: list[int], rooms: list[int], batch_size: int) -> Iterator[list[int]]:
    """Batches of prompts with similar lengths and room for the same number of new tokens."""
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    for _, group in groupby(order, key=lambda index: rooms[index]):
        rows = list(group)
        yield from (rows[start : start + batch_size] for start in range(0, len(rows), batch_size))


@contextmanager
def undisturbed(backbone: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode, then restore every module's mode and the random state."""
    modes = {module: module.training for module in backbone.modules()}
    with torch.random.fork_rng():
        backbone.eval()
        try:
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode


@contextmanager
def _bare(model: PreTrainedModel) -> Iterator[None]:
    """Use the library's attention, uncompiled layers and neutral generation defaults.

    The model's own defaults (Qwen's repetition penalty, say) would change what is measured, and compiled layers would
    be recompiled as the cache grows.
    """
    defaults, model.generation_config = model.generation_config, GenerationConfig()
    with ordinary_attention(model), torch.compiler.set_stance("force_eager"):
        try:
            yield
        finally:
            model.generation_config = defaults


def _generate_batch(
    backbone: nn.Module,
    prompts: list[Sequence[int]],
    end_token_id: int,
    steps: LogitsProcessorList,
    *,
    max_new_tokens: int,
) -> list[list[int]]:
    ids, attention_mask = _pad_left(prompts, end_token_id)
    device = next(backbone.parameters()).device
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        eos_token_id=end_token_id,
        pad_token_id=end_token_id,
        use_cache=True,
        do_sample=False,
    )
    output = causal_lm(backbone).generate(
        input_ids=ids.to(device),
        attention_mask=attention_mask.to(device),
        generation_config=config,
        logits_processor=steps,
    )
    return output[:, ids.shape[1] :].tolist()  # type: ignore[no-any-return]


class _OnlyKnown(LogitsProcessor):  # type: ignore[misc]
    """Rules out the ids that only pad the vocabulary: the tokenizer has no text for them.

    Args:
        count: Ids that the tokenizer knows.
    """

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if scores.shape[1] <= self.count:
            return scores
        return torch.cat([scores[:, : self.count], torch.full_like(scores[:, self.count :], -torch.inf)], dim=1)


class _Draw(LogitsProcessor):  # type: ignore[misc]
    """Samples by adding Gumbel noise to the logits, with a separate generator for each row.

    Args:
        seeds: The seed of each row.
    """

    def __init__(self, seeds: list[int]) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        size = scores.shape[1]
        noise = torch.stack([torch.rand(size, generator=g, dtype=torch.float64) for g in self.generators])
        gumbel = -torch.log(-torch.log(noise.clamp_(1e-300, 1 - 1e-16)))
        return scores + gumbel.to(scores)


def _draws(settings: GenerationSettings, seeds: list[int]) -> LogitsProcessorList:
    if settings.temperature == 0:
        return LogitsProcessorList()
    steps = [TemperatureLogitsWarper(settings.temperature), TopPLogitsWarper(settings.top_p), _Draw(seeds)]
    return LogitsProcessorList(steps)


def _seed_of(prompt: Sequence[int], seed: int) -> int:
    digest = hashlib.blake2b(repr((seed, list(map(int, prompt)))).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _pad_left(prompts: list[Sequence[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """(B, T) ids and their attention mask, padded on the left so that every row ends where its answer starts."""
    length = max(map(len, prompts))
    ids = torch.full((len(prompts), length), pad_token_id, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, length - len(prompt) :] = torch.tensor(list(prompt))
        mask[row, length - len(prompt) :] = 1
    return ids, mask


def _room(backbone: nn.Module, prompt_length: int, max_new_tokens: int) -> int:
    """The number of new tokens that a prompt leaves room for."""
    context = getattr(causal_lm(backbone).config, "max_position_embeddings", None)
    if context is None:
        return max_new_tokens
    if prompt_length >= context:
        raise UserError(
            f"a prompt of {prompt_length} tokens leaves no room for an answer: the model reads {context}. Shorten it."
        )
    return int(min(max_new_tokens, context - prompt_length))


def _decode(ids: list[int], tokenizer: PreTrainedTokenizerBase, end_token_id: int) -> Generated:
    ended = end_token_id in ids
    answer = ids[: ids.index(end_token_id)] if ended else ids
    text = tokenizer.decode(answer, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return Generated(str(text), len(answer) + ended, ended)
