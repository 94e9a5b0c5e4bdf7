"""Which tokens a run adds to the vocabulary, and which of them never occur in what it trains on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np

from data_modules.wording import counted, listed
from lit_sft.models.new_tokens import ids_of_new_tokens
from lit_sft.printable import printable
from lit_sft.training.data import TrainingData

_MOST_READ = 10_000
"""Training examples that are searched for new tokens; the search ends when all of them are found."""


def lines_about(tokens: Sequence[str], data: TrainingData) -> list[str]:
    """What to print about new tokens before training: their ids, and a warning if some will not be trained.

    Args:
        tokens: At least one.
        data: Set up; its tokenizer has the tokens.
    """
    ids = dict(zip(ids_of_new_tokens(data.tokenizer, tokens), tokens, strict=True))
    names = listed([printable(token) for token in tokens])
    lines = [f"tokens  {counted(len(tokens), 'new token')} from id {min(ids):,} on: {names}"]
    if unseen := _unseen(data.stores["train"], set(ids)):
        is_read = len(data.stores["train"]) <= _MOST_READ
        where = "the training data" if is_read else f"the first {_MOST_READ:,} training examples"
        missing = listed([printable(ids[index]) for index in sorted(unseen)])
        lines.append(
            f"warning {missing}: not in {where}, so hardly trained. A special token that is written in a text "
            "stays text: only chat templates produce it. For words, use `--model.backbone.add_tokens`."
        )
    return lines


def _unseen(examples: Any, ids: set[int]) -> set[int]:
    """The ids that do not occur in the first training examples: conversations, or blocks of documents."""
    left = set(ids)
    for item in islice((examples[index] for index in range(len(examples))), _MOST_READ):
        for part in item if isinstance(item, list) else [item]:
            left -= set(np.unique(part.input_ids).tolist())
        if not left:
            break
    return left
