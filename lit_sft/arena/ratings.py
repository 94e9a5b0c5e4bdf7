"""Ratings of models from votes: intervals, which models are told apart, and what position and length do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice

import numpy as np

from data_modules.wording import counted
from lit_sft.arena.bradley_terry import EFFECTS, Effect, Fit, TieModel, fit
from lit_sft.arena.clustered import clusters_of, estimates
from lit_sft.arena.comparisons import Comparisons, ratable_groups
from lit_sft.reporting.statistics import Estimate, holm

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Record:
    """What one side won against another.

    Attributes:
        wins: Votes for it.
        losses: Votes for the other.
        ties: Votes for neither, both bad included.
        both_bad: Votes that found both bad.
    """

    wins: int
    losses: int
    ties: int
    both_bad: int

    @property
    def votes(self) -> int:
        """All votes."""
        return self.wins + self.losses + self.ties

    @property
    def score(self) -> float:
        """Share of wins, a tie counting half."""
        return (self.wins + self.ties / 2) / self.votes


@dataclass(frozen=True)
class PlayerRating:
    """A player's rating.

    Attributes:
        player: Its name.
        record: Against the other rated players.
        num_voters: Voters who compared it.
        num_prompts: Prompts on which it was compared.
        rating: In logits; the mean of all rated players is 0.
        at_equal_length: The same if all answers were of equal length; None if that cannot be estimated.
        ranks: The best and the worst rank that the comparisons with other players leave open.
    """

    player: str
    record: Record
    num_voters: int
    num_prompts: int
    rating: Estimate
    at_equal_length: Estimate | None
    ranks: tuple[int, int]


@dataclass(frozen=True)
class PairRating:
    """Two players compared, through all votes.

    Attributes:
        first: The player with the higher rating.
        second: The other one.
        record: Of the first against the second in direct comparison; None if they never met.
        difference: Of their ratings, in logits.
        adjusted_p: p-value of no difference, adjusted by Holm's method over all pairs.
    """

    first: str
    second: str
    record: Record | None
    difference: Estimate
    adjusted_p: float

    @property
    def is_told_apart(self) -> bool:
        """Whether the votes suffice to say which one is preferred."""
        return self.adjusted_p < 1 - self.difference.confidence


@dataclass(frozen=True)
class Ratings:
    """What a group of voters prefers.

    Attributes:
        num_votes: All votes, of players without a rating too.
        num_voters: Number of voters.
        num_prompts: Number of prompts.
        players: The rated players, the best first.
        pairs: All pairs of them.
        effects: In logits: of being on the left, of being twice as long. Those that cannot be estimated are missing.
        unrated: Why the other players have no rating.
        notes: What a reader should know, a sentence each.
    """

    num_votes: int
    num_voters: int
    num_prompts: int
    players: list[PlayerRating]
    pairs: list[PairRating]
    effects: dict[Effect, Estimate]
    unrated: dict[str, str]
    notes: list[str]


def rate(comparisons: Comparisons, *, ties: TieModel = "davidson") -> Ratings:
    """Rate the players.

    Ratings allow for the position of answers; only `at_equal_length` allows for their length as well, because length
    may be a merit.

    Args:
        comparisons: The votes of one group of voters.
        ties: How ties count.
    """
    voted = np.union1d(comparisons.left, comparisons.right)
    kept = ratable_groups(comparisons)[0]
    counts = len(comparisons), len(np.unique(comparisons.voter)), len(np.unique(comparisons.prompt))
    unrated = {comparisons.players[each]: _why_unrated(comparisons, int(each), kept) for each in voted}
    if len(kept) < 2:
        return Ratings(*counts, [], [], {}, unrated, [])
    rated = comparisons.of_players(kept)
    for player in rated.players:
        del unrated[player]
    model, notes = _tie_model(rated, ties)
    plain, controlled = fit(rated, ties=model), fit(rated, ties=model, effects=EFFECTS)
    found, equal = _Estimates(rated, plain), _Estimates(rated, controlled)
    pairs = _pairs(rated, found)
    players = _players(rated, found, equal, pairs)
    both = {**equal.effects, **found.effects}
    effects = {name: both[name] for name in EFFECTS if name in both}
    notes += _about_effects(effects) + _about_clusters(rated, players)
    return Ratings(*counts, players, pairs, effects, unrated, notes)


class _Estimates:
    """All estimates of a fitted model.

    Attributes:
        order: The players, the best first.
        ratings: Of each player.
        differences: Of each pair of players, in the order of their ratings.
        effects: Of each effect.
    """

    def __init__(self, rated: Comparisons, model: Fit) -> None:
        own = model.rating_contrasts()
        self.order: list[int] = np.argsort(-model.ratings, kind="stable").tolist()
        pairs = list(combinations(self.order, 2))
        contrasts = [*own, *(own[one] - own[other] for one, other in pairs), *map(model.effect_contrast, model.effects)]
        found = iter(estimates(model, np.stack(contrasts), clusters_of(rated), _CONFIDENCE))
        self.ratings = list(islice(found, len(own)))
        self.differences = dict(zip(pairs, islice(found, len(pairs)), strict=True))
        self.effects = dict(zip(model.effects, found, strict=True))


def _tie_model(rated: Comparisons, ties: TieModel) -> tuple[TieModel, list[str]]:
    """Davidson's model has no maximum unless players have beaten each other in a circle, if only A B and B A."""
    if ties == "half" or not rated.is_tie.any() or len(ratable_groups(rated, ties=False)[0]) > 1:
        return ties, []
    return "half", ["Too few votes to estimate how likely ties are; each counts as half a win."]


def _pairs(rated: Comparisons, found: _Estimates) -> list[PairRating]:
    """All pairs, in the order of their ratings."""
    adjusted = holm([difference.p_value for difference in found.differences.values()])
    names = rated.players
    return [
        PairRating(names[first], names[second], _record(rated, first, second), difference, p)
        for ((first, second), difference), p in zip(found.differences.items(), adjusted, strict=True)
    ]


def _players(
    rated: Comparisons, found: _Estimates, equal: _Estimates, pairs: Sequence[PairRating]
) -> list[PlayerRating]:
    """All players, the best first."""
    players = []
    for player in found.order:
        name, record = rated.players[player], _record(rated, player)
        assert record is not None
        above = sum(pair.is_told_apart and pair.second == name for pair in pairs)
        below = sum(pair.is_told_apart and pair.first == name for pair in pairs)
        met = (rated.left == player) | (rated.right == player)
        players.append(
            PlayerRating(
                player=name,
                record=record,
                num_voters=len(np.unique(rated.voter[met])),
                num_prompts=len(np.unique(rated.prompt[met])),
                rating=found.ratings[player],
                at_equal_length=equal.ratings[player] if "length" in equal.effects else None,
                ranks=(1 + above, len(rated.players) - below),
            )
        )
    return players


def _record(rated: Comparisons, player: int, other: int | None = None) -> Record | None:
    """A player's record, against another or all; None without votes."""
    on_left = (rated.left == player) & ((rated.right == other) | (other is None))
    on_right = (rated.right == player) & ((rated.left == other) | (other is None))
    met = on_left | on_right
    if not met.any():
        return None
    wins = int((on_left & (rated.outcome == 1)).sum() + (on_right & (rated.outcome == 0)).sum())
    num_ties = int((met & rated.is_tie).sum())
    return Record(wins, int(met.sum()) - wins - num_ties, num_ties, int((met & rated.is_bad).sum()))


def _about_effects(effects: Mapping[Effect, Estimate]) -> list[str]:
    notes = []
    if "position" not in effects:
        notes.append(
            "The effect of position cannot be told from ratings, because models were not on both sides of others; "
            "ratings include it."
        )
    if "length" not in effects:
        notes.append("The effect of length cannot be told from ratings: lengths do not vary, or only between models.")
    return notes


def _about_clusters(rated: Comparisons, players: Sequence[PlayerRating]) -> list[str]:
    """Which intervals say nothing about other voters or prompts."""
    notes = []
    for what, word, ids, counts in (
        ("voter", "by", rated.voter, [player.num_voters for player in players]),
        ("prompt", "on", rated.prompt, [player.num_prompts for player in players]),
    ):
        if len(np.unique(ids)) == 1:
            notes.append(f"All votes are {word} one {what}; nothing is known about others.")
        elif alone := [player.player for player, count in zip(players, counts, strict=True) if count == 1]:
            names = ", ".join(f"“{name}”" for name in alone)
            notes.append(f"Compared {word} one {what} only: {names}.")
    return notes


def _why_unrated(comparisons: Comparisons, player: int, kept: Sequence[int]) -> str:
    """Why a player has no finite rating next to those of a group."""
    others = [each for each in kept if each != player]
    records = [found for other in others if (found := _record(comparisons, player, other))]
    wins, losses = sum(record.wins for record in records), sum(record.losses for record in records)
    whom = "the rated models" if len(kept) > 1 else "the others"
    if len(kept) < 2:
        record = _record(comparisons, player)
        assert record is not None
        wins, losses = record.wins, record.losses
        if wins and losses:
            return f"won {counted(wins, 'vote')} and lost {counted(losses, 'vote')}, but each against other models"
    if not wins and not losses:
        return f"no votes against {whom}"
    what = f"{'won' if wins else 'lost'} {counted(wins or losses, 'vote')} against {whom}"
    return f"{what} and {'lost' if wins else 'won'} none, so its rating has no {'upper' if wins else 'lower'} limit"
