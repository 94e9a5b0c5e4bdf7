"""Ratings as sentences and tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from scipy.special import expit

from data_modules.wording import counted
from lit_sft.arena.ballots import PEOPLE
from lit_sft.arena.bradley_terry import Effect
from lit_sft.arena.ratings import PairRating, PlayerRating, Ratings, Record
from lit_sft.reporting.formatting import p_of
from lit_sft.reporting.page import Cell, Finding, Table
from lit_sft.reporting.statistics import Estimate

POINTS = 400 / math.log(10)
"""Points of a logit. 400 points are odds of ten to one, as in Elo ratings."""

MEAN = 1000
"""The points of a player of average strength."""

_MOST_PAIRS = 6

_SCALE = (
    "400 points are odds of ten to one; 1,000 is the mean of the rated models. ± is half of the 95 % interval, over "
    "voters and prompts. The rank is a range where other models are not yet told apart."
)


def in_words(ratings: Mapping[str, Ratings]) -> list[str]:
    """The answer, group by group."""
    lines = []
    for group, found in ratings.items():
        lines += [*_about_best(group, found), *_about_effects(group, found)]
    return [*lines, *_about_agreement(ratings)]


def headline(ratings: Mapping[str, Ratings]) -> Table:
    """Every player's rating and rank; by each group on a line of its own, so that it fits into a terminal."""
    names = list(dict.fromkeys(player.player for found in ratings.values() for player in found.players))
    rows: list[list[Cell]] = []
    for name in names:
        for group, found in ratings.items():
            own = (player for player in found.players if player.player == name)
            if (player := next(own, None)) is not None:
                by = [group] if len(ratings) > 1 else []
                rows.append([name, *by, rating_of(player.rating), rank_of(player), f"{player.record.votes:,}"])
    by = ["voters"] if len(ratings) > 1 else []
    return Table("Ratings", ["", *by, "rating", "rank", "votes"], rows, [_SCALE] if rows else [])


def players_table(group: str, found: Ratings) -> Table:
    """A group's ratings in full."""
    rows: list[list[Cell]] = [
        [
            player.player,
            rating_of(player.rating),
            rating_of(player.at_equal_length) if player.at_equal_length else "",
            rank_of(player),
            *_record_cells(player.record),
            f"{player.num_voters:,}",
            f"{player.num_prompts:,}",
        ]
        for player in found.players
    ]
    header = ["", "rating", "at equal length", "rank", *_RECORD, "voters", "prompts"]
    return Table(f"Ratings by {group}", header, rows, [_SCALE, *found.notes])


def pairs_table(group: str, found: Ratings) -> Table:
    """Every pair of players."""
    rows: list[list[Cell]] = [
        [
            f"{pair.first} – {pair.second}",
            difference_of(pair.difference),
            p_of(pair.difference.p_value),
            p_of(pair.adjusted_p),
            Finding("told apart", 1) if pair.is_told_apart else "not yet told apart",
            *(_record_cells(pair.record) if pair.record else [""] * len(_RECORD)),
        ]
        for pair in found.pairs
    ]
    notes = [
        "Differences use all votes; wins, losses and ties are those of the two models against each other. Models are "
        "told apart if the p-value, adjusted by Holm's method over all pairs, is below 0.05."
    ]
    header = ["", "difference", "p", "p, Holm", "", *_RECORD]
    return Table(f"Pairs by {group}", header, rows, notes)


def effects_table(ratings: Mapping[str, Ratings]) -> Table:
    """What position and length do to votes."""
    rows: list[list[Cell]] = [
        [f"{_EFFECTS[effect]}, {group}", _share_of(estimate), p_of(estimate.p_value)]
        for group, found in ratings.items()
        for effect, estimate in found.effects.items()
    ]
    notes = ["The share of votes for that answer, ties excluded, if both are equally good. 50 % is no effect."]
    return Table("Position and length", ["", "wins, 95 % interval", "p"], rows, notes)


def unrated_table(ratings: Mapping[str, Ratings]) -> Table:
    """Players without a rating, and why."""
    rows: list[list[Cell]] = [
        [f"{name}, {group}", why] for group, found in ratings.items() for name, why in found.unrated.items()
    ]
    return Table("Not rated", ["", "why"], rows, is_text=True)


def rating_of(estimate: Estimate) -> str:
    """A rating in points, with its interval."""
    return f"{MEAN + POINTS * estimate.value:,.0f} ±{POINTS * estimate.half_width:,.0f}"


def difference_of(estimate: Estimate) -> str:
    """A difference in points, with its interval."""
    value, low, high = (POINTS * each for each in (estimate.value, estimate.low, estimate.high))
    return f"{value:+,.0f} ({low:+,.0f} to {high:+,.0f})"


def rank_of(player: PlayerRating) -> str:
    """The ranks that a player may have."""
    low, high = player.ranks
    return f"{low}" if low == high else f"{low} to {high}"


_RECORD = ["votes", "wins", "losses", "ties", "of these both bad"]

_EFFECTS: dict[Effect, str] = {"position": "left, or first", "length": "twice as long"}


def _record_cells(record: Record) -> list[Cell]:
    counts = record.votes, record.wins, record.losses, record.ties, record.both_bad
    return [f"{count:,}" for count in counts]


def _share_of(estimate: Estimate) -> str:
    value, low, high = (100 * float(expit(each)) for each in (estimate.value, estimate.low, estimate.high))
    return f"{value:.1f}% ({low:.1f} to {high:.1f})"


def _about_best(group: str, found: Ratings) -> list[str]:
    what = f"{_title(group)}, {counted(found.num_votes, 'vote')}"
    if not found.players:
        why = "; ".join(f"“{name}” {reason}" for name, reason in found.unrated.items())
        return [f"{what}: no model can be rated yet. {why}."]
    best, *others = found.players
    behind = [p.second for p in found.pairs if p.first == best.player and p.is_told_apart]
    if len(behind) == len(others):
        lines = [f"{what}: “{best.player}” is preferred to {_all_of(others)}."]
    else:
        lead = f"“{best.player}” leads with {rating_of(best.rating)} points"
        lines = [f"{what}: the best model is not yet known; {lead}."]
    lines += _about_pairs(found.pairs)
    if found.unrated:
        lines.append(f"Not rated: {', '.join(f'“{name}”' for name in found.unrated)}; see “Not rated”.")
    return lines


def _all_of(others: Sequence[PlayerRating]) -> str:
    return f"“{others[0].player}”" if len(others) == 1 else f"all {len(others)} others"


def _about_pairs(pairs: Sequence[PairRating]) -> list[str]:
    unclear = [pair for pair in pairs if not pair.is_told_apart]
    if not unclear:
        return []
    shown = "; ".join(
        f"“{pair.first}” and “{pair.second}”, {difference_of(pair.difference)}" for pair in unclear[:_MOST_PAIRS]
    )
    more = len(unclear) - _MOST_PAIRS
    rest = f"; and {counted(more, 'more pair')}" if more > 0 else ""
    return [f"Not yet told apart: {shown}{rest}."]


def _about_effects(group: str, found: Ratings) -> list[str]:
    """The effects beyond noise."""
    which = {"position": "the one on the left, or first,", "length": "one that is twice as long"}
    whose = "" if group == PEOPLE else f" of {group}"
    return [
        f"Of two equally good answers, {which[effect]} wins {_share_of(estimate)} of the votes{whose}, ties excluded."
        for effect, estimate in found.effects.items()
        if estimate.p_value < 1 - estimate.confidence
    ]


def _about_agreement(ratings: Mapping[str, Ratings]) -> list[str]:
    """Whether judges put models in the same order as people."""
    if PEOPLE not in ratings:
        return []
    lines, of_people = [], _preferred(ratings[PEOPLE])
    for group in ratings.keys() - {PEOPLE}:
        own = _preferred(ratings[group])
        shared = [pair for pair in of_people if pair in own]
        against = [pair for pair in shared if own[pair] != of_people[pair]]
        if not shared:
            lines.append(f"No pair is told apart by both {PEOPLE} and {group}, so they cannot be compared yet.")
            continue
        order = f"{len(shared) - len(against)} of {counted(len(shared), 'pair')}"
        wrong = "; ".join(" and ".join(f"“{name}”" for name in sorted(pair)) for pair in against[:_MOST_PAIRS])
        opposite = f" The order of {wrong} is the opposite." if against else ""
        lines.append(f"Where both tell models apart, {group} agrees with {PEOPLE} on {order}.{opposite}")
    return sorted(lines)


def _preferred(found: Ratings) -> dict[frozenset[str], str]:
    """The better player of each pair that is told apart."""
    return {frozenset((pair.first, pair.second)): pair.first for pair in found.pairs if pair.is_told_apart}


def _title(group: str) -> str:
    return group[0].upper() + group[1:]
