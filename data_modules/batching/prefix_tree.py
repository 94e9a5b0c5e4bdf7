"""The documents of a packed row as a tree, in which every shared beginning stands once.

Documents often begin alike: the preamble of a template, a system prompt, the examples of a few-shot prompt, every
earlier turn if each answer is a sample. What a causal model computes for a token depends on the tokens before it and on
nothing else, so a beginning that documents share needs to be computed only once:

    row (15 tokens)      stretches (9 tokens)
    a a a a b b          a a a a ┬ b b
    a a a a c            ────────┤ c
    a a a a d            ────────┘ d
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

SHORTEST = 8
"""Tokens that documents must share so that they are computed once: a stretch costs two calls of attention a layer."""

_TOKENS_AT_ONCE = 64
"""Tokens by which documents are sorted first."""

Ids = npt.NDArray[np.int32]


class PrefixTree:
    """Which tokens of a packed row are computed, in stretches. A stretch comes after its parent, before its siblings.

    Not a dataclass, for the same reason as `Batch`.

    Attributes:
        computed: The tokens that are computed, stretch by stretch: flat positions in the row, (C,) int64.
        places: Where each token of the row is among the computed ones, (T,) int64.
        targets: The distinct predictions: flat positions of their targets in the row, (M,) int64. Documents that share
            a target share its prediction.
        repeats: Which of the distinct predictions each of the batch's targets is, (N,) int64.
        lengths: Tokens in each stretch, on the host.
        parents: The stretch before each stretch; -1 if it is the beginning of its documents.
    """

    __slots__ = ("computed", "lengths", "parents", "places", "repeats", "targets")

    def __init__(
        self,
        *,
        computed: Tensor,
        places: Tensor,
        targets: Tensor,
        repeats: Tensor,
        lengths: tuple[int, ...],
        parents: tuple[int, ...],
    ) -> None:
        self.computed, self.places = computed, places
        self.targets, self.repeats = targets, repeats
        self.lengths, self.parents = lengths, parents

    def map(self, change: Callable[[Tensor], Tensor]) -> PrefixTree:
        """A copy with changed tensors, such as on another device."""
        values = {name: getattr(self, name) for name in self.__slots__}
        changed: dict[str, Any] = {n: change(v) if isinstance(v, Tensor) else v for n, v in values.items()}
        return PrefixTree(**changed)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Tokens that are computed once for all documents that begin with them.

    Attributes:
        parent: Index of the stretch before it; -1 for none.
        begin: Position of its first token in its documents.
        end: Position after its last token.
        documents: The documents that contain it.
    """

    parent: int
    begin: int
    end: int
    documents: tuple[int, ...]

    def __len__(self) -> int:
        return self.end - self.begin


def stretches_of(documents: Sequence[Ids], shortest: int = SHORTEST) -> list[Stretch]:
    """Split documents into stretches, each computed once.

    Args:
        documents: Token ids of each document, not empty.
        shortest: Tokens that documents must share beyond their common parent to get a stretch of their own.

    Returns:
        The stretches, parents before their children, each subtree in one piece. The stretches of a document, in order,
        are the document.
    """
    order = in_order(documents)
    # neighbours in this order share most: what a group shares is the least that any two neighbours share
    shared = [common_length(documents[a], documents[b]) for a, b in pairwise(order)]
    stretches: list[Stretch] = []
    waiting = [(0, len(order), 0, -1)]  # documents from, to (in order), tokens that are done, parent
    while waiting:
        first, last, done, parent = waiting.pop()
        if not any(len(documents[index]) > done for index in order[first:last]):
            continue
        groups = _split(shared, first, last, done + shortest)
        if len(groups) > 1:
            waiting += [(*group, done, parent) for group in reversed(groups)]
            continue
        end = min(shared[first : last - 1], default=len(documents[order[first]]))
        waiting.append((first, last, end, len(stretches)))
        stretches.append(Stretch(parent, done, end, tuple(order[first:last])))
    return stretches


def _split(shared: Sequence[int], first: int, last: int, least: int) -> list[tuple[int, int]]:
    """Split sorted documents where neighbours share fewer than `least` tokens."""
    cuts = [first, *(place + 1 for place in range(first, last - 1) if shared[place] < least), last]
    return list(pairwise(cuts))


def common_length(one: Ids, other: Ids) -> int:
    """The number of tokens with which both documents begin."""
    length = min(len(one), len(other))
    differs = one[:length] != other[:length]
    return int(differs.argmax()) if differs.any() else length


def in_order(documents: Sequence[Ids]) -> list[int]:
    """The indices of documents, sorted by their ids: those that begin alike are neighbours."""
    return _in_order(documents, range(len(documents)), common=0)


def _in_order(documents: Sequence[Ids], indices: Iterable[int], common: int) -> list[int]:
    """Sort documents that share their first `common` tokens by the next ones, then those that share these too.

    All tokens of a million documents at once would take gigabytes.
    """
    end = 2 * common + _TOKENS_AT_ONCE
    keys = {index: documents[index][common:end].astype(">i4").tobytes() for index in indices}
    order = sorted(keys, key=keys.__getitem__)
    starts = [0, *(place for place in range(1, len(order)) if keys[order[place]] != keys[order[place - 1]]), len(order)]
    for first, last in pairwise(starts):
        if last - first > 1 and len(documents[order[first]]) >= end:
            order[first:last] = _in_order(documents, order[first:last], end)
    return order


def prefix_tree(documents: Sequence[Ids], targets: npt.NDArray[np.int64]) -> PrefixTree | None:
    """The tree of the documents of a packed row.

    Args:
        documents: Token ids of each document, in the order of the row.
        targets: Flat positions of the row's targets, (N,).

    Returns:
        The tree; None if no document shares enough with another.
    """
    stretches = stretches_of(documents)
    if all(len(stretch.documents) == 1 for stretch in stretches):
        return None
    starts = np.cumsum([0, *map(len, documents)])
    places = np.empty(starts[-1], dtype=np.int64)
    computed, done = [], 0
    for stretch in stretches:
        run = np.arange(len(stretch))
        computed.append(starts[stretch.documents[0]] + stretch.begin + run)
        for document in stretch.documents:
            places[starts[document] + stretch.begin + run] = done + run
        done += len(stretch)
    _, distinct, repeats = np.unique(places[targets], return_index=True, return_inverse=True)
    return PrefixTree(
        computed=torch.from_numpy(np.concatenate(computed)),
        places=torch.from_numpy(places),
        targets=torch.from_numpy(targets[distinct]),
        repeats=torch.from_numpy(repeats.astype(np.int64)),
        lengths=tuple(map(len, stretches)),
        parents=tuple(stretch.parent for stretch in stretches),
    )
