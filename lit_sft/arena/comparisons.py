"""Votes as arrays: who was compared with whom, on which side, and what the voter preferred."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

TIE = 0.5
"""The outcome of a tie."""


@dataclass(frozen=True)
class Comparisons:
    """N votes on the answers of P players.

    Attributes:
        players: Their names.
        left: (N,) The player on the left, an index into `players`.
        right: (N,) The player on the right.
        outcome: (N,) 1 if the left answer is preferred, 0 if the right one is, 0.5 for a tie.
        length: (N,) Logarithm to base 2 of the left answer's length over the right one's.
        voter: (N,) A number for each voter.
        prompt: (N,) A number for each prompt.
        is_bad: (N,) Whether the voter found both answers bad, which is a tie otherwise.
    """

    players: tuple[str, ...]
    left: Ints
    right: Ints
    outcome: Floats
    length: Floats
    voter: Ints
    prompt: Ints
    is_bad: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.outcome)

    @property
    def is_tie(self) -> npt.NDArray[np.bool_]:
        """(N,) Whether a vote is a tie."""
        return np.asarray(self.outcome == TIE)

    def of_players(self, kept: Sequence[int]) -> Comparisons:
        """Only the votes between some players, who get new numbers."""
        new = np.full(len(self.players), -1)
        new[list(kept)] = np.arange(len(kept))
        chosen = (new[self.left] >= 0) & (new[self.right] >= 0)
        found = self._at(chosen)
        names = tuple(self.players[player] for player in kept)
        return replace(found, players=names, left=new[found.left], right=new[found.right])

    def _at(self, chosen: npt.NDArray[np.bool_]) -> Comparisons:
        return Comparisons(
            self.players,
            self.left[chosen],
            self.right[chosen],
            self.outcome[chosen],
            self.length[chosen],
            self.voter[chosen],
            self.prompt[chosen],
            self.is_bad[chosen],
        )


def ratable_groups(comparisons: Comparisons, *, ties: bool = True) -> list[list[int]]:
    """Groups of players within which finite ratings exist, the group with the most votes first.

    They exist if, however the group is split in two, each part has beaten the other at least once (ties count as both).
    Source: L. R. Ford, "Solution of a ranking problem from binary comparisons" (1957).

    Args:
        comparisons: The votes.
        ties: Whether a tie connects two players.

    Returns:
        Lists of players in ascending order; a player who only won or only lost is a group of one.
    """
    won, lost = _winners_and_losers(comparisons, ties)
    size = len(comparisons.players)
    graph = coo_matrix((np.ones(len(won)), (won, lost)), shape=(size, size))
    _, label = connected_components(graph, directed=True, connection="strong")
    inside = label[comparisons.left][label[comparisons.left] == label[comparisons.right]]
    votes = np.bincount(inside, minlength=size)
    groups = [np.flatnonzero(label == group).tolist() for group in range(label.max() + 1)]
    return sorted(groups, key=lambda group: (-votes[label[group[0]]], -len(group), group))


def _winners_and_losers(comparisons: Comparisons, ties: bool) -> tuple[Ints, Ints]:
    left, right, outcome = comparisons.left, comparisons.right, comparisons.outcome
    won = [left[outcome == 1], right[outcome == 0]]
    lost = [right[outcome == 1], left[outcome == 0]]
    if ties:
        tied = comparisons.is_tie
        won += [left[tied], right[tied]]
        lost += [right[tied], left[tied]]
    return np.concatenate(won), np.concatenate(lost)
