"""Generation: the only sampling code. Prompts are token ids, rendered by the template used in training.

Streamed, in batches or one by one, an answer is made by the same code and is the same: a row has its own random
numbers, and its text is passed on as far as it is certain.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteriaList,
)

from data_modules.encoding.tokenizers import num_ids
from data_modules.errors import UserError
from lit_sft.models.adapters import causal_lm
from lit_sft.models.attention import ordinary_attention
from lit_sft.models.next_token import Choice, NextToken, TokenLogprob
from lit_sft.models.quantization import dequantized_once
from lit_sft.models.unfinished import AddTokens, Listener, UnfinishedAnswer


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
        if self.temperature == math.inf:
            raise UserError("temperature inf: expected a finite number.")
        if not self.temperature >= 0:
            raise UserError(f"temperature {self.temperature:g}: expected at least 0.")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p {self.top_p:g}: expected more than 0, at most 1.")


@dataclass(frozen=True, slots=True)
class Generated:
    """One generated answer.

    Attributes:
        text: The decoded answer, without the end token, and without the stop string and what follows it.
        num_tokens: Tokens generated, including the end token.
        ended: Whether the model ended the answer itself.
        stopped_by: The stop string that ended it.
        is_cancelled: Whether it was cancelled.
        logprobs: One for each generated token, including the end token; empty unless requested.
    """

    text: str
    num_tokens: int
    ended: bool
    stopped_by: str | None = None
    is_cancelled: bool = False
    logprobs: tuple[TokenLogprob, ...] = ()

    @property
    def is_cut(self) -> bool:
        """Whether it reached the maximum number of tokens."""
        return not (self.ended or self.is_cancelled or self.stopped_by is not None)


@dataclass(frozen=True)
class GenerationRequest:
    """A prompt, and how to answer it.

    Attributes:
        prompt: Token ids, at least one.
        settings: How to generate. The batch size has no effect.
        seed: Determines the sampling if the temperature is above 0, together with the prompt.
        stop: Strings that end the answer; they are not part of it.
        num_likeliest: The likeliest tokens to report for every place, with the log-probability of the chosen one. None:
            no log-probabilities.
        listener: Called with every piece of the answer, in the thread that generates. An error in it ends the batch.
        is_cancelled: Whether to stop; asked after every token, in the thread that generates.
        when_answered: Called with the answer as soon as it is finished, while others of its batch may go on, in the
            thread that generates. Not if it was cancelled before it was begun.
    """

    prompt: Sequence[int]
    settings: GenerationSettings = GenerationSettings()
    seed: int = 0
    stop: tuple[str, ...] = ()
    num_likeliest: int | None = None
    listener: Listener | None = None
    is_cancelled: Callable[[], bool] | None = None
    when_answered: Callable[[Generated], None] | None = None

    def __post_init__(self) -> None:
        if not len(self.prompt):
            raise UserError("the prompt has no tokens; expected at least one.")
        if "" in self.stop:
            raise UserError("a stop string is empty; expected at least one character.")
        if self.num_likeliest is not None and self.num_likeliest < 0:
            raise UserError(f"num_likeliest {self.num_likeliest}: expected at least 0.")


def generate(
    backbone: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    tokenizer: PreTrainedTokenizerBase,
    end_token_id: int,
    settings: GenerationSettings | None = None,
    seed: int = 0,
) -> list[Generated]:
    """Answer every prompt, all with the same settings.

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
    requests = [GenerationRequest(prompt, settings, seed) for prompt in prompts]
    return answer_requests(
        backbone, requests, tokenizer=tokenizer, end_token_id=end_token_id, batch_size=settings.batch_size
    )


def answer_requests(
    backbone: nn.Module,
    requests: Sequence[GenerationRequest],
    *,
    tokenizer: PreTrainedTokenizerBase,
    end_token_id: int,
    batch_size: int = 16,
) -> list[Generated]:
    """Answer every request. Their settings may differ.

    The model's mode and settings are restored, and no global random state is read or changed. One thread at a time uses
    a model; others wait. Answers do not depend on batching, up to rounding in the model's arithmetic: sampling for a
    prompt depends only on the seed and the prompt.

    Args:
        backbone: A causal language model, with or without adapters.
        requests: What to answer.
        tokenizer: Decodes the answers.
        end_token_id: Generation stops on it.
        batch_size: Prompts per batch.

    Raises:
        UserError: If a prompt leaves no room for an answer.
    """
    results: dict[int, Generated] = {}
    rooms = [room_for_answer(backbone, len(each.prompt), each.settings.max_new_tokens) for each in requests]
    with lock_of(backbone), evaluating(backbone), _bare(causal_lm(backbone)), torch.no_grad():
        for rows in _batches([len(each.prompt) for each in requests], batch_size):
            answers = [_unfinished(requests[row], rooms[row], tokenizer, end_token_id) for row in rows]
            _finish(backbone, [requests[row] for row in rows], answers, end_token_id, tokenizer)
            results |= zip(rows, map(_generated, answers), strict=True)
    return [results[index] for index in range(len(requests))]


def context_of(backbone: nn.Module) -> int | None:
    """The most tokens that a model reads; None if its config does not say."""
    return getattr(causal_lm(backbone).config, "max_position_embeddings", None)


def room_for_answer(backbone: nn.Module, prompt_length: int, max_new_tokens: int) -> int:
    """The most tokens that the answer to a prompt can have.

    Args:
        backbone: The model.
        prompt_length: Tokens of the prompt.
        max_new_tokens: The most that are wanted.

    Raises:
        UserError: If there is no room at all.
    """
    context = context_of(backbone)
    if context is None:
        return max_new_tokens
    if prompt_length >= context:
        raise UserError(
            f"a prompt of {prompt_length} tokens leaves no room for an answer: the model reads {context}. Shorten it."
        )
    return int(min(max_new_tokens, context - prompt_length))


def _batches(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Batches of prompts with similar lengths."""
    rows = sorted(range(len(lengths)), key=lambda row: lengths[row])
    for start in range(0, len(rows), batch_size):
        yield rows[start : start + batch_size]


_LOCKS: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()
_LOCKING = threading.Lock()


def lock_of(backbone: nn.Module) -> threading.RLock:
    """The lock of a model: generation changes its mode and settings for a while, so one thread at a time uses it."""
    with _LOCKING:
        return _LOCKS.setdefault(causal_lm(backbone), threading.RLock())


@contextmanager
def evaluating(backbone: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode, then restore every module's mode."""
    modes = {module: module.training for module in backbone.modules()}
    backbone.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def undisturbed(backbone: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode, then restore every module's mode and the random state."""
    with torch.random.fork_rng(), evaluating(backbone):
        yield


@contextmanager
def _bare(model: PreTrainedModel) -> Iterator[None]:
    """Use the library's attention, uncompiled layers, weights dequantised once, and neutral generation defaults.

    The model's own defaults (Qwen's repetition penalty, say) would change what is measured, and compiled layers would
    be recompiled as the cache grows.
    """
    defaults, model.generation_config = model.generation_config, GenerationConfig()
    is_compiled = any(module._compiled_call_impl is not None for module in model.modules())
    # the stance is a setting of the whole process, which threads with other models share
    stance = torch.compiler.set_stance("force_eager") if is_compiled else nullcontext()
    with ordinary_attention(model), dequantized_once(model), stance:
        try:
            yield
        finally:
            model.generation_config = defaults


def _unfinished(
    request: GenerationRequest, room: int, tokenizer: PreTrainedTokenizerBase, end_token_id: int
) -> UnfinishedAnswer:
    return UnfinishedAnswer(
        tokenizer,
        end_token_id,
        room,
        stop=request.stop,
        listener=request.listener,
        is_cancelled=request.is_cancelled,
        when_finished=lambda answer: request.when_answered(_generated(answer)) if request.when_answered else None,
    )


def _finish(
    backbone: nn.Module,
    requests: Sequence[GenerationRequest],
    answers: Sequence[UnfinishedAnswer],
    end_token_id: int,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Finish the answers to some requests, those that are cancelled already excepted.

    A row goes on, to no effect, until all rows are finished, and no row can go on beyond the model's context. When the
    longest row reaches it, the others are continued as prompts of their own.
    """
    next_token = NextToken([_choice(request) for request in requests], num_known(tokenizer))
    while rows := [row for row, answer in enumerate(answers) if not answer.is_finished]:
        prompts = [[*requests[row].prompt, *answers[row].ids] for row in rows]
        _continue(backbone, prompts, [answers[row] for row in rows], next_token.of(rows), end_token_id)


def _continue(
    backbone: nn.Module,
    prompts: list[list[int]],
    answers: Sequence[UnfinishedAnswer],
    next_token: NextToken,
    end_token_id: int,
) -> None:
    """Continue answers until all are finished, or the longest row fills the model's context."""
    ids, attention_mask = _pad_left(prompts, end_token_id)
    device, context = next(backbone.parameters()).device, context_of(backbone)
    num_tokens = max(answer.max_tokens - len(answer.ids) for answer in answers)
    config = GenerationConfig(
        max_new_tokens=num_tokens if context is None else min(num_tokens, context - ids.shape[1]),
        eos_token_id=end_token_id,
        pad_token_id=end_token_id,
        use_cache=True,
        do_sample=False,
    )
    causal_lm(backbone).generate(
        input_ids=ids.to(device),
        attention_mask=attention_mask.to(device),
        generation_config=config,
        logits_processor=LogitsProcessorList([next_token]),
        stopping_criteria=StoppingCriteriaList([AddTokens(answers, next_token)]),
    )


def _choice(request: GenerationRequest) -> Choice:
    settings = request.settings
    seed = _seed_of(request.prompt, request.seed)
    return Choice(settings.temperature, settings.top_p, seed, request.num_likeliest)


def _seed_of(prompt: Sequence[int], seed: int) -> int:
    digest = hashlib.blake2b(repr((seed, list(map(int, prompt)))).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


_KNOWN: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[int, int]] = WeakKeyDictionary()


def num_known(tokenizer: PreTrainedTokenizerBase) -> int:
    """How many ids can be generated: `num_ids`, remembered until the vocabulary grows.

    It takes a tenth of a second for a large vocabulary.
    """
    size, known = _KNOWN.get(tokenizer, (-1, 0))
    if size != len(tokenizer):
        known = num_ids(tokenizer)
        _KNOWN[tokenizer] = len(tokenizer), known
    return known


def _pad_left(prompts: Sequence[Sequence[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """(B, T) ids and their attention mask, padded on the left so that every row ends where its answer starts."""
    length = max(map(len, prompts))
    ids = torch.full((len(prompts), length), pad_token_id, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, length - len(prompt) :] = torch.tensor(list(prompt))
        mask[row, length - len(prompt) :] = 1
    return ids, mask


def _generated(answer: UnfinishedAnswer) -> Generated:
    return Generated(
        answer.text,
        len(answer.ids) + answer.has_ended,
        answer.has_ended,
        answer.stopped_by,
        answer.is_cancelled,
        tuple(answer.logprobs),
    )
