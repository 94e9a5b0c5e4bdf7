"""Decides which examples share a micro-batch.

These functions see only lengths, work within one optimiser step, and give the same result on every machine. Packing
and grouping therefore never change which examples form a step, only what the step costs.

    five documents     packed, at most 12 tokens     grouped and padded, at most 12 tokens

    a a a a a a a      a a a a a a a b b b b b       a a a a a a a
    b b b b b          c c c c d d d e e             b b b b b | c c c c .
    c c c c                                          d d d | e e .
    d d d
    e e
"""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Sequence
from itertools import pairwise


def best_fit(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Pack documents into few rows: longest first, each into the fullest row with enough room.

    Args:
        lengths: Tokens in each document.
        budget: Maximum number of tokens in a row. A longer document gets its own row.

    Returns:
        Positions in `lengths`, row by row, ascending within a row.

    Source: best-fit decreasing, which needs at most 11/9 of the fewest rows possible (Johnson, 1973).
    """
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []  # room left in each row and its number, ascending
    for position in _longest_first(lengths):
        place = bisect.bisect_left(free, (lengths[position], 0))
        if place == len(free):
            rows.append([])
            room, row = max(budget, lengths[position]), len(rows) - 1
        else:
            room, row = free.pop(place)
        rows[row].append(position)
        bisect.insort(free, (room - lengths[position], row))
    return [sorted(row) for row in rows]


def length_groups(lengths: Sequence[int], budget: int, most: int | None = None) -> list[list[int]]:
    """Group documents of similar length for padding, longest first, as many as the budget allows.

    Args:
        lengths: Tokens in each document.
        budget: Maximum number of tokens in a group, padding included. A longer document gets its own group.
        most: Maximum number of documents in a group.

    Returns:
        Positions in `lengths`, group by group.
    """
    groups: list[list[int]] = []
    for position in _longest_first(lengths):
        group = groups[-1] if groups else []
        is_full = bool(group) and (len(group) + 1) * lengths[group[0]] > budget
        if not group or is_full or len(group) == most:
            groups.append([position])
        else:
            group.append(position)
    return groups


def equal_shares(lengths: Sequence[int], num: int) -> list[list[int]]:
    """Distribute documents over `num` micro-batches of roughly equal size, so that ranks finish together.

    Returns:
        Positions in `lengths`, micro-batch by micro-batch; some are empty if there are fewer documents.

    Source: longest processing time first (Graham, 1969).
    """
    shares: list[list[int]] = [[] for _ in range(num)]
    heap = [(0, 0, share) for share in range(num)]  # tokens, documents, number: the emptiest comes first
    for position in _longest_first(lengths):
        tokens, count, share = heapq.heappop(heap)
        shares[share].append(position)
        heapq.heappush(heap, (tokens + lengths[position], count + 1, share))
    return [sorted(share) for share in shares]


def similar_lengths(lengths: Sequence[int], num: int) -> list[list[int]]:
    """Distribute documents over `num` micro-batches of similar lengths, to keep padding low.

    Adjacent micro-batches are the most similar, so ranks that work on them at the same time finish together.
    """
    order = _longest_first(lengths)
    bounds = [len(order) * share // num for share in range(num + 1)]
    return [sorted(order[start:end]) for start, end in pairwise(bounds)]


def _longest_first(lengths: Sequence[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda position: (-lengths[position], position))
