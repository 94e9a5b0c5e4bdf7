"""Decides which examples share a micro-batch, and a step, where what examples share is computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from data_modules.batching.prefix_tree import SHORTEST, Ids, common_length, in_order

IdsOf = Callable[[int], Ids]


class ByPrefix:
    """Distributes the examples of an optimiser step so that those that begin alike stand together.

    Works within a step, from its ids alone, so it gives the same plan on every machine. Examples are sorted; each then
    costs the tokens that it does not share with the one before it, and a part of a step is a run of this order.

    Args:
        ids_of: Returns the ids of an example, by index.
        token_budget: Maximum number of computed tokens in a micro-batch, unless it is a single example.
    """

    def __init__(self, ids_of: IdsOf, token_budget: int) -> None:
        self.ids_of, self.token_budget = ids_of, token_budget

    def shares(self, window: Sequence[int], num: int) -> list[list[int]]:
        """Distribute a step over `num` parts of roughly equal cost; some are empty if there are fewer examples."""
        indices, costs = self._sorted(window)
        ends = _balanced(costs, num)
        while len(ends) < min(num, len(indices)):  # every part gets an example, even if that costs more
            first, last = max(pairwise([0, *ends]), key=lambda run: run[1] - run[0])
            ends = sorted({*ends, (first + last) // 2})
        parts = [indices[first:last] for first, last in pairwise([0, *ends])]
        return parts + [[] for _ in range(num - len(parts))]

    def micro_batches(self, share: Sequence[int]) -> list[tuple[int, ...]]:
        """Cut a part into micro-batches, as few as the budget allows and of roughly equal cost."""
        indices, costs = self._sorted(share)
        ends = _balanced(costs, len(_run_ends(costs, self.token_budget)))
        return [tuple(indices[first:last]) for first, last in pairwise([0, *ends])]

    def groups(self, indices: Sequence[int], most: int | None = None) -> list[tuple[int, ...]]:
        """Cut examples into runs within the budget, of at most `most` examples each; the most expensive first."""
        indices, costs = self._sorted(indices)
        runs = list(pairwise([0, *_run_ends(costs, self.token_budget, rows=most)]))
        runs.sort(key=lambda run: -_cost(costs[slice(*run)]))
        return [tuple(indices[first:last]) for first, last in runs]

    def _sorted(self, indices: Sequence[int]) -> tuple[list[int], list[tuple[int, int]]]:
        """Indices in the order of their ids, and the cost of each: as the first of a run, and after the one before."""
        documents = [self.ids_of(index) for index in indices]
        order = in_order(documents)
        costs = [(len(documents[place]), len(documents[place])) for place in order[:1]]
        for before, after in pairwise(order):
            # stretches shorter than this are computed for each, wherever they begin
            shared = common_length(documents[before], documents[after]) - (SHORTEST - 1)
            costs.append((len(documents[after]), len(documents[after]) - max(0, shared)))
        return [indices[place] for place in order], costs


def _cost(costs: Sequence[tuple[int, int]]) -> int:
    """The cost of a run."""
    return costs[0][0] + sum(added for _, added in costs[1:])


def _run_ends(costs: Sequence[tuple[int, int]], most: int, rows: int | None = None) -> list[int]:
    """The ends of the fewest runs that cost at most this, unless a run is a single example.

    Args:
        costs: The cost of each example: as the first of a run, and after the one before.
        most: Maximum cost of a run.
        rows: Maximum number of examples in a run. None: any.
    """
    ends: list[int] = []
    total = 0
    for place, (alone, added) in enumerate(costs):
        is_full = rows is not None and place - (ends[-1] if ends else 0) >= rows
        if place and total + added <= most and not is_full:
            total += added
            continue
        ends += [place] if place else []
        total = alone
    return [*ends, len(costs)] if costs else []


def _balanced(costs: Sequence[tuple[int, int]], num: int) -> list[int]:
    """The ends of at most `num` runs, of which the most expensive is as cheap as possible."""
    low, high = 0, sum(alone for alone, _ in costs)
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (low, middle) if len(_run_ends(costs, middle)) <= num else (middle, high)
    return _run_ends(costs, high)


def families(num: int, ids_of: IdsOf, rows: int | None = None) -> npt.NDArray[np.int64]:
    """The family of each example: examples that share most of their tokens, such as the answers of a conversation.

    In the order of their ids, two neighbours are of one family if they share at least half of the shorter one. A family
    of more than a step, such as all examples with the same tools, is split in the same way by what follows the tokens
    that all its members share: into conversations.

    Args:
        num: Number of examples.
        ids_of: Returns the ids of an example, by index.
        rows: Examples per optimiser step. None: large families stay whole.

    Returns:
        (num,) numbers of families, from 0.
    """
    documents = [ids_of(index) for index in range(num)]
    order = in_order(documents)
    lengths = np.array([len(documents[index]) for index in order], dtype=np.int64)
    shared = np.array([common_length(documents[a], documents[b]) for a, b in pairwise(order)], dtype=np.int64)
    shorter = np.minimum(lengths[:-1], lengths[1:])
    starts: list[int] = []
    waiting = [(0, num, 0)] if num else []  # examples from, to (in order), tokens that all of them share
    while waiting:
        first, last, common = waiting.pop()
        between = slice(first, last - 1)
        apart = 2 * (shared[between] - common) < shorter[between] - common
        runs = list(pairwise([first, *(first + 1 + np.flatnonzero(apart)).tolist(), last]))
        if len(runs) > 1:
            waiting += [(*run, common) for run in runs]
        elif rows is None or last - first <= rows or (least := int(shared[between].min())) <= common:
            starts.append(first)
        else:
            waiting.append((first, last, least))
    firsts = np.zeros(num, dtype=np.int64)
    firsts[starts] = 1
    family = np.empty(num, dtype=np.int64)
    family[order] = np.cumsum(firsts) - 1
    return family


class Families:
    """The families of a set of examples, found once for each size of a step.

    Args:
        num: Number of examples.
        ids_of: Returns the ids of an example, by index.
    """

    def __init__(self, num: int, ids_of: IdsOf) -> None:
        self.num, self.ids_of = num, ids_of
        self._found: dict[int, npt.NDArray[np.int64]] = {}

    def of(self, rows: int) -> npt.NDArray[np.int64]:
        """The family of each example, with this many examples per optimiser step: see `families`."""
        if rows not in self._found:
            self._found[rows] = families(self.num, self.ids_of, rows)
        return self._found[rows]


def grouped(order: npt.NDArray[np.int64], family: npt.NDArray[np.int64], rows: int) -> npt.NDArray[np.int64]:
    """Move examples of one family together, into the place of the first; at most `rows` at a time.

    Args:
        order: The order of the examples.
        family: The family of each.
        rows: Examples per optimiser step.

    Returns:
        The new order.
    """
    of_place = family[order]
    by_family = np.argsort(of_place, kind="stable")  # within a family, in the given order
    firsts = np.r_[True, of_place[by_family][1:] != of_place[by_family][:-1]]
    starts = np.flatnonzero(firsts)
    number = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))  # within its family
    leaders = np.flatnonzero(number % rows == 0)
    place = np.repeat(by_family[leaders], np.diff(np.r_[leaders, len(order)]))  # of the first of its group
    return order[by_family[np.argsort(place, kind="stable")]]
