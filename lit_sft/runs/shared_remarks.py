"""Remarks that fine-tuning and text runs share, on held-out splits and the token budget, and on grouped examples."""

from __future__ import annotations

import numpy as np

from data_modules.encoding.ledger import why_empty
from data_modules.encoding.text_split_checks import why_no_document
from data_modules.sft_data_module import SFTDataModule
from data_modules.text_data_module import TextDataModule

_MISSING = {"val": "no validation", "test": "no test"}


def held_out_remarks(data: SFTDataModule | TextDataModule) -> list[str]:
    """One line for each split that a fraction of the training records was asked for, and that has none.

    Args:
        data: Data module, set up.
    """
    return [
        f"{_MISSING[split]}: nothing is left of --data.{split}_fraction {share:g} ({_why(data, split)}). Raise it, or "
        f"name your own with `--data.{split} FILE`."
        for split, share in data.sources.shares.items()
        if split in data.ledgers and not len(data.stores.get(split, ()))
    ]


def _why(data: SFTDataModule | TextDataModule, split: str) -> str:
    if not data.ledgers[split]["records_read"]:
        return "so few records that none was chosen"
    if isinstance(data, TextDataModule):
        return why_no_document(split, data.ledgers, data.sources.shares)
    return why_empty(data.ledgers[split], data.length_limit(split))


def budget_remarks(data: SFTDataModule | TextDataModule) -> list[str]:
    """A line if the token budget is below the length of a row, which is never cut to fit into it.

    Args:
        data: Data module, set up.
    """
    row = "block" if isinstance(data, TextDataModule) else "example"
    longest = max((_longest(data, split) for split, store in data.stores.items() if len(store)), default=0)
    if longest <= data.token_budget:
        return []
    return [
        f"--data.token_budget {data.token_budget:,} is less than one {row}: a forward pass then reads one {row} of up "
        f"to {longest:,} tokens."
    ]


def group_remarks(data: SFTDataModule) -> list[str]:
    """A line if examples are grouped by what they share, because this changes which of them form a step.

    Args:
        data: Data module, set up.
    """
    if "train" not in data.stores or (family := data.train_sampler().family) is None:
        return []
    _, sizes = np.unique(family, return_counts=True)
    several = sizes[sizes > 1]
    if not len(several):
        return ["--data.group_by_prefix: no two examples share half of their tokens, so none are grouped."]
    return [
        f"--data.group_by_prefix: {several.sum():,} of {len(family):,} examples form {len(several):,} groups of up to "
        f"{several.max():,} that share half of their tokens. A group may extend into the next step."
    ]


def _longest(data: SFTDataModule | TextDataModule, split: str) -> int:
    if isinstance(data, TextDataModule):
        return data.length_limit(split)
    return int(data.ledgers[split]["length"].get("max", 0))
