"""Preference pairs in batches: what a pair costs, and which of its documents are computed.

A pair is one example, so every plan keeps its documents in one micro-batch. They are neighbours there, the chosen one
first, and what they share is computed once:

    row      p p p p c c p p p p r r r        p: prompt, c: chosen answer, r: rejected answer
    costs    p p p p c c         r r r
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from data_modules.batching.prefix_plans import IdsOf
from data_modules.batching.prefix_tree import Ids, common_length
from data_modules.encoding.example import Example
from data_modules.encoding.example_store import ExampleStore


def documents_of(examples: Sequence[Example]) -> list[Example]:
    """Both documents of every pair, the chosen one first.

    Args:
        examples: Preference pairs.
    """
    documents = []
    for example in examples:
        assert example.rejected is not None, f"{example.origin}: not a pair"
        documents += [example, example.rejected]
    return documents


def are_pairs(store: ExampleStore) -> bool:
    """Whether all examples are preference pairs."""
    return len(store) > 0 and bool((store.rejected_lengths > 0).all())


def extents(store: ExampleStore, *, pairs: bool, packed: bool) -> tuple[list[int], IdsOf]:
    """What plans need to know of examples.

    Args:
        store: The examples.
        pairs: Whether the rejected documents of pairs are in the batches.
        packed: Whether documents are concatenated; otherwise both of a pair are padded to the longer one.

    Returns:
        The tokens that each example takes in a batch; and a function that returns the ids of an example, by index,
        with the shared beginning of a pair listed once.
    """
    rejected = store.rejected_lengths
    lengths = store.lengths - rejected
    if pairs:
        both = lengths + rejected if packed else 2 * np.maximum(lengths, rejected)
        lengths = np.where(rejected > 0, both, lengths)
    numbers: list[int] = lengths.tolist()
    return numbers, partial(_ids, store, pairs) if rejected.any() else store.ids


def _ids(store: ExampleStore, pairs: bool, index: int) -> Ids:
    ids = store.ids(index)
    cut = len(ids) - int(store.rejected_lengths[index])
    if not pairs or cut == len(ids):
        return ids[:cut]
    chosen, rejected = ids[:cut], ids[cut:]
    return np.concatenate([chosen, rejected[common_length(chosen, rejected) :]])
