"""Settings proposed for a data set, a model and a machine, each with its reason."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lit_sft.init.machine import Machine
from lit_sft.init.model_size import ModelSize
from lit_sft.init.survey import Lengths, Survey

_MEMORY_USED = 0.5
"""Share of the free memory that training may take by our estimate, which leaves room for what it does not count."""

_MOST_TOKENS = 16384
_SMALL = 64
_LONGEST = 1024
_STEPS_OF_EPOCH = 50
_BATCHES = (4, 32)
_RECORDS_FOR_FULL = 5_000
_STEPS_FROM_SCRATCH = 1_000
_EPOCHS_FROM_SCRATCH = (3, 50)


@dataclass(frozen=True)
class Proposal:
    """Proposed settings.

    Attributes:
        max_length: Longest example, in tokens; for text, the size of a block.
        batch_size: Examples or blocks in a step.
        token_budget: Tokens in a forward pass.
        tuning: `full` or `lora`.
        why_tuning: The reason.
        is_recomputed: Whether activations are recomputed, to save memory.
        memory: Estimate of the memory that training takes, in bytes.
        fits: Whether that is within what may be used.
        epochs: Passes over the data.
        held_out: Share for validation, and for testing; 0 if there are too few records.
        tokens: Tokens of an epoch.
        seconds: The least that an epoch takes.
        steps: Steps of an epoch.
        is_text: Whether examples are blocks of text.
        is_preference: Whether examples are preference pairs, to be trained by DPO.
    """

    max_length: int
    batch_size: int
    token_budget: int
    tuning: str
    why_tuning: str
    is_recomputed: bool
    memory: int
    fits: bool
    epochs: int
    held_out: float
    tokens: int
    seconds: float
    steps: int
    is_text: bool = False
    is_preference: bool = False


def propose(
    found: Survey, measured: Lengths, size: ModelSize, machine: Machine, *, context: int, is_pretrained: bool
) -> Proposal:
    """Choose settings.

    Args:
        found: The records.
        measured: Their lengths.
        size: The model's.
        machine: Where it is trained.
        context: Tokens that the model can read.
        is_pretrained: Whether it has weights already.
    """
    longest = min(context, _LONGEST) if found.is_text else length_limit(measured, context)
    row = 2 * longest if found.is_preference else longest
    held_out = found.share_to_hold_out()
    records = max(1, round(found.num_records * (1 - 2 * held_out)))
    documents = [*measured.tokens, *measured.shorter]
    kept = [min(length, longest) for length in documents]
    scale = records / len(measured.tokens)
    tokens = round(sum(documents if found.is_text else kept) * scale)
    rows = max(1, tokens // longest) if found.is_text else records
    is_mixed = machine.precision.endswith("mixed")
    usable = _MEMORY_USED * machine.memory
    tuning, why = _tuning(found, size, usable, is_mixed=is_mixed, is_pretrained=is_pretrained)
    state = size.state_bytes(tuning, is_mixed=is_mixed)
    per_token = size.bytes_per_token(tuning, is_mixed=is_mixed)
    is_recomputed = state + per_token * row > usable
    if is_recomputed:
        per_token = size.bytes_per_token(tuning, is_mixed=is_mixed, is_recomputed=True)
    budget = token_budget(usable - state, per_token, row)
    batch = batch_size(rows)
    steps = math.ceil(rows / batch)
    return Proposal(
        max_length=longest,
        batch_size=batch,
        token_budget=budget,
        tuning=tuning,
        why_tuning=why,
        is_recomputed=is_recomputed,
        memory=state + per_token * min(budget, batch * row),
        fits=state + per_token * row <= usable,
        epochs=3 if is_pretrained else _within(round(_STEPS_FROM_SCRATCH / steps), _EPOCHS_FROM_SCRATCH),
        held_out=held_out,
        tokens=tokens,
        seconds=scale * _flops(found, measured, size, kept, tuning, longest) / machine.flops,
        steps=steps,
        is_text=found.is_text,
        is_preference=found.is_preference,
    )


def length_limit(measured: Lengths, context: int) -> int:
    """A limit that keeps 99 % of the examples whole, rounded up, within what the model can read.

    Args:
        measured: Lengths of examples.
        context: Tokens that the model can read.
    """
    wanted = max(_SMALL, _SMALL * math.ceil(measured.percentile(0.99) / _SMALL))
    return min(wanted, context)


def token_budget(free: float, per_token: int, longest: int) -> int:
    """The most tokens of a forward pass that fit into memory, at least one example.

    Args:
        free: Bytes that are left for them.
        per_token: Bytes for each.
        longest: Tokens of the longest example.
    """
    tokens = int(free / per_token) // 256 * 256
    return max(longest, min(_MOST_TOKENS, tokens))


def batch_size(rows: int) -> int:
    """A power of two that gives an epoch about fifty steps, between 4 and 32.

    Args:
        rows: Examples of an epoch.
    """
    return _within(2 ** round(math.log2(max(1, rows / _STEPS_OF_EPOCH))), _BATCHES)


def _tuning(found: Survey, size: ModelSize, usable: float, *, is_mixed: bool, is_pretrained: bool) -> tuple[str, str]:
    if not is_pretrained:
        return "full", "the weights are random"
    if found.is_preference:
        return "lora", "DPO then compares with the model without the adapters, instead of a second one"
    needed = size.state_bytes("full", is_mixed=is_mixed)
    if needed > usable / 2:
        return "lora", f"training all weights takes {needed / 1e9:.1f} GB before the first token"
    if not found.is_text and found.num_records < _RECORDS_FOR_FULL:
        records = "1 record is" if found.num_records == 1 else f"{found.num_records:,} records are"
        return "lora", f"{records} few for {size.weights / 1e6:,.0f} M weights"
    return "full", "there are enough records and memory"


def _flops(found: Survey, measured: Lengths, size: ModelSize, kept: list[int], tuning: str, longest: int) -> float:
    """Floating-point operations of training on the sample once."""
    model = size.lora_flops if tuning == "lora" else size.flops
    if not found.is_text:
        num = len(measured.tokens)
        shares = (min(1.0, now / before) for now, before in zip(kept[:num], measured.tokens, strict=True))
        supervised = sum(round(n * share) for n, share in zip(measured.supervised, shares, strict=True))
        return model.flops(kept, supervised, tuning)
    blocks = [block for length in measured.tokens for block in (*[longest] * (length // longest), length % longest)]
    return model.flops(blocks, sum(measured.tokens), tuning)


def _within(value: int, limits: tuple[int, int]) -> int:
    return max(limits[0], min(limits[1], value))
