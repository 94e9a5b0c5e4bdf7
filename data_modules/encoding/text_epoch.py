"""Which blocks an epoch of a text run has: each once, or by the weights and repeats of a mixture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from data_modules.encoding.block_plans import BlockPolicy, Places
from data_modules.encoding.mixture import chosen, wanted_examples
from data_modules.encoding.text_blocks import BlockLedger, Blocks
from data_modules.encoding.text_store import DocumentAttention, Shards, TrainingBlocks
from data_modules.errors import UserError
from data_modules.records.mix import MixSource


def training_blocks(
    shards: Shards,
    mix: Sequence[MixSource],
    *,
    policy: BlockPolicy,
    size: int,
    attention: DocumentAttention,
    keep_rest: bool,
) -> TrainingBlocks:
    """The blocks of an epoch. A block never has documents of two sources.

    Args:
        shards: The training documents.
        mix: The sources of a mixture; none without.
        policy: How documents are cut and put together.
        size: Maximum number of tokens in a block.
        attention: Whether the documents of a block see each other.
        keep_rest: See `Blocks`.

    Raises:
        UserError: If there is no block, or a source has none.
    """
    if not mix:
        blocks = Blocks(policy, size, shards, keep_rest=keep_rest)
        _check_blocks(blocks, "the training documents")
        return TrainingBlocks(shards, [blocks], attention)
    sources = np.asarray(shards.sources)
    parts = [
        Blocks(policy, size, shards, np.flatnonzero(sources == index), keep_rest=keep_rest) for index in range(len(mix))
    ]
    for source, blocks in zip(mix, parts, strict=True):
        _check_blocks(blocks, f"--data.mix {source.name}: its documents ({', '.join(source.files)})")
    return TrainingBlocks(shards, parts, attention, _rows(mix, parts))


def wanted_blocks(mix: Sequence[MixSource], ledgers: Sequence[BlockLedger]) -> list[int]:
    """How many blocks of each source an epoch has.

    With weights, an epoch has as many tokens as all sources together, divided among them by weight.

    Args:
        mix: The sources.
        ledgers: The blocks of each.
    """
    if mix[0].weight is None:
        return wanted_examples(mix, [ledger.blocks for ledger in ledgers])
    total, weights = sum(ledger.kept for ledger in ledgers), [source.weight or 0.0 for source in mix]
    return [
        max(1, round(total * weight / sum(weights) / (ledger.kept / ledger.blocks)))
        for weight, ledger in zip(weights, ledgers, strict=True)
    ]


def block_ledgers(blocks: TrainingBlocks, mix: Sequence[MixSource]) -> tuple[dict[str, int], dict[str, Any]]:
    """What happened to all training tokens, and the same for each source, with its share of an epoch."""
    whole = BlockLedger()
    by_source: dict[str, Any] = {}
    counts = wanted_blocks(mix, [part.ledger for part in blocks.parts]) if mix else []
    for part in blocks.parts:
        whole += part.ledger
    for source, part, count in zip(mix, blocks.parts, counts, strict=False):
        ledger = part.ledger
        epoch = {
            "blocks": count,
            "tokens": round(count * ledger.kept / ledger.blocks),
            "repeats": round(count / ledger.blocks, 4),
        }
        by_source[source.name] = {"blocks": ledger.as_dict(), "epoch": epoch}
    return whole.as_dict(), by_source


def _check_blocks(blocks: Blocks, what: str) -> None:
    """Refuse documents that leave no block to train on."""
    if any(blocks.num_tokens(index) > 1 for index in range(len(blocks))):
        return
    ledger = blocks.ledger
    why = "they are empty"
    if ledger.cropped:
        why = (
            f"no sentence of their {ledger.tokens:,} tokens fits in {blocks.size}. Raise `--data.block_size`, or set "
            "`--data.blocks best_fit`"
        )
    raise UserError(f"{what}: nothing to train on, because {why}.")


def _rows(mix: Sequence[MixSource], parts: Sequence[Blocks]) -> Places:
    rows, start = [], 0
    for blocks, count in zip(parts, wanted_blocks(mix, [part.ledger for part in parts]), strict=True):
        rows.append(start + chosen(_hashes(len(blocks)), count))
        start += len(blocks)
    return np.concatenate(rows)


def _hashes(count: int) -> npt.NDArray[np.uint64]:
    """A pseudo-random number for each block, so that the lowest ones are a sample. Source: SplitMix64's finaliser."""
    numbers = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
