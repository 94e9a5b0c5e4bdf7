"""A few steps of training with random weights, timed: how long an epoch takes on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_
from transformers import AutoModelForCausalLM, PretrainedConfig

from data_modules.batching.batch import Batch, collate
from data_modules.batching.batch_settings import BatchSettings
from data_modules.encoding.example import Example
from data_modules.rendering.masking import LossMask
from lit_sft.init.machine import Machine, wait
from lit_sft.init.proposal import Proposal
from lit_sft.models.adapters import LoraSettings, causal_lm, with_adapters
from lit_sft.models.architectures import has_dropout, special_attention
from lit_sft.models.attention import can_share_prefixes, use_document_attention
from lit_sft.models.backbone import narrow_frozen_layers
from lit_sft.models.objectives import ObjectiveSettings, objective_of
from lit_sft.models.reference import keep_reference
from lit_sft.training.optimization import OptimizerSettings, build_optimizer
from lit_sft.training.precision import AUTOCAST_DTYPES

_SECONDS = 5.0
"""How long the steps go on."""

_FEWEST = 64
"""Tokens of the first pass."""

_LARGEST = {"cpu": 1e9, "cuda": 1e10}
"""Weights of a model that is still built, which takes half a minute."""


@dataclass(frozen=True)
class Trial:
    """How long training takes.

    Attributes:
        per_token: Seconds of a forward and backward pass for each token.
        per_step: Seconds of the optimiser for each step.
    """

    per_token: float
    per_step: float

    def seconds(self, tokens: int, steps: int) -> float:
        """Seconds of training on some tokens in some steps."""
        return self.per_token * tokens + self.per_step * steps


def is_possible(weights: int, proposal: Proposal, machine: Machine) -> bool:
    """Whether the model fits into memory, and is built in reasonable time."""
    return proposal.fits and weights <= _LARGEST[machine.device]


def try_steps(
    examples: Sequence[Example],
    config: PretrainedConfig,
    lora: LoraSettings,
    proposal: Proposal,
    machine: Machine,
    mask: LossMask,
) -> Trial:
    """Train a model of this shape for some seconds, in batches like those of `fit`.

    Args:
        examples: A sample of the data, of any length.
        config: The model's; its weights are random, which does not change the time.
        lora: Settings of the adapters, if the proposal has them.
        proposal: The proposed settings.
        machine: Where to train.
        mask: Which tokens carry the loss.
    """
    with torch.random.fork_rng(devices=[]), torch.device(machine.device):
        torch.manual_seed(0)
        model = build(config, lora, proposal, machine)
    passes = Passes(model, proposal, machine, mask)
    at_once = _tokens_at_once(examples, passes)
    parts = [part for each in examples for part in _parts(each, min(proposal.max_length, at_once), proposal.is_text)]
    took, tokens, steps = 0.0, 0, list[float]()
    for group, is_last in _micro_batches(parts, passes, min(proposal.token_budget, at_once)):
        took += passes.run(*group)
        tokens += sum(map(_size, group))
        is_over = took + sum(steps) > _SECONDS / 2
        if is_last or is_over:
            steps.append(passes.step())
        if is_over:
            break
    return Trial(took / tokens, sum(steps) / len(steps))


def _tokens_at_once(examples: Sequence[Example], passes: Passes) -> int:
    """The most tokens of a pass, within the budget, that half of the time allows, found by doubling.

    Small passes are no measure: on a busy machine, every operation waits for the slowest thread, whatever its size.
    """
    proposal, tokens, took, last = passes.proposal, _FEWEST, 0.0, 0.0
    passes.run(*_beginning(examples, proposal.max_length, tokens))  # the first pass is slower
    passes.step()
    while tokens < proposal.token_budget and took + 2 * last < _SECONDS / 2:
        last = passes.run(*_beginning(examples, proposal.max_length, tokens))
        took, tokens = took + last, 2 * tokens
    return tokens


class Passes:
    """Forward and backward passes as `fit` computes them, and steps of the optimiser.

    Args:
        model: With or without adapters, on the device of the machine.
        proposal: The proposed settings.
        machine: Where to train.
        mask: Which tokens carry the loss.
    """

    def __init__(self, model: nn.Module, proposal: Proposal, machine: Machine, mask: LossMask) -> None:
        self.proposal, self._model, self._machine, self._mask = proposal, model, machine, mask
        self.packs = special_attention(causal_lm(model)) is None
        self.shares = can_share_prefixes(causal_lm(model)) and not has_dropout(causal_lm(model))
        self._objective = objective_of(ObjectiveSettings(name="dpo" if proposal.is_preference else "next_token"))
        self._weights = [weight for weight in model.parameters() if weight.requires_grad]
        self._optimizer = build_optimizer(model, OptimizerSettings(lr=1e-5))

    def run(self, *examples: Example) -> float:
        """Compute the gradients of a micro-batch; returns seconds."""
        began = self._now()
        device, dtype = self._machine.device, AUTOCAST_DTYPES.get(self._machine.precision)
        batch = self._collated(examples).to(device)
        with torch.autocast(device, dtype, enabled=dtype is not None):
            total, _ = self._objective(self._model, batch)
        (total / max(batch.normaliser, 1.0)).backward()  # type: ignore[no-untyped-call]
        return self._now() - began

    def step(self) -> float:
        """Take a step of the optimiser; returns seconds."""
        began = self._now()
        clip_grad_norm_(self._weights, 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return self._now() - began

    def _collated(self, examples: Sequence[Example]) -> Batch:
        pairs = self.proposal.is_preference
        return collate(examples, mask=self._mask, pack=self.packs, share_prefixes=self.shares, pairs=pairs)

    def _now(self) -> float:
        wait(self._machine.device)
        return time.perf_counter()


def build(config: PretrainedConfig, lora: LoraSettings, proposal: Proposal, machine: Machine) -> nn.Module:
    """A model with random weights, as `fit` would build it.

    Args:
        config: The model's.
        lora: Settings of the adapters, if the proposal has them.
        proposal: The proposed settings.
        machine: Where to train.
    """
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    use_document_attention(model)
    if proposal.is_recomputed:
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    backbone: nn.Module = with_adapters(model, lora) if proposal.tuning == "lora" else model
    dtype = AUTOCAST_DTYPES.get(machine.precision)
    if proposal.tuning == "lora" and dtype is not None:
        narrow_frozen_layers(backbone, dtype)
    if proposal.is_preference:
        keep_reference(backbone)
    return backbone.train()


def _beginning(examples: Sequence[Example], longest: int, tokens: int) -> list[Example]:
    """The first tokens of the data, as examples of limited length."""
    found = list[Example]()
    for example in cycle(examples):
        found.append(_cut(example, 0, min(longest, tokens)))
        tokens -= _size(found[-1])
        if tokens <= 0:
            break
    return found


def _micro_batches(
    examples: Sequence[Example], passes: Passes, token_budget: int
) -> Iterator[tuple[list[Example], bool]]:
    """The micro-batches of an epoch, and whether each is the last of its step."""
    proposal = passes.proposal
    lengths = [_size(example) for example in examples]
    rows = proposal.batch_size
    if proposal.is_text:  # several pieces make up a block
        rows = max(1, round(rows * proposal.max_length * len(lengths) / sum(lengths)))
    settings = BatchSettings(
        batch_size=rows, eval_batch_size=None, packing=passes.packs, token_budget=token_budget, shuffle=True, seed=0,
        share_prefixes=False,
    )  # fmt: skip
    for plan in settings.train_sampler(lengths, lambda _: 1.0, None):
        for number, group in enumerate(plan.micro_batches, start=1):
            yield [examples[index] for index in group], number == len(plan.micro_batches)


def _size(example: Example) -> int:
    """Tokens of an example; of both documents of a pair."""
    return len(example) + (len(example.rejected) if example.rejected is not None else 0)


def _parts(example: Example, longest: int, is_text: bool) -> list[Example]:
    """A document in pieces of blocks; the beginning of any other example that is too long."""
    starts = range(0, len(example), longest) if is_text else (0,)
    return [_cut(example, start, start + longest) for start in starts]


def _cut(example: Example, start: int, stop: int) -> Example:
    part = slice(start, stop)
    other = _cut(example.rejected, start, stop) if example.rejected is not None else None
    return replace(
        example, input_ids=example.input_ids[part], kinds=example.kinds[part], turns=example.turns[part], rejected=other
    )
