"""The page of ratings, and the numbers as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lit_sft.arena.ballots import Ballots, Voters, read_ballots
from lit_sft.arena.bradley_terry import TieModel
from lit_sft.arena.ratings import Ratings, Record, rate
from lit_sft.arena.ratings_chart import draw_ratings
from lit_sft.arena.ratings_tables import (
    MEAN,
    POINTS,
    effects_table,
    headline,
    in_words,
    pairs_table,
    players_table,
    unrated_table,
)
from lit_sft.files import write_json
from lit_sft.reporting.page import Report, Table, write_pages
from lit_sft.reporting.statistics import Estimate

_TIES = {
    "davidson": "Davidson's, which estimates how likely ties are",
    "half": "half a win for each",
}


@dataclass(frozen=True)
class RatedVotes:
    """Ratings and where they were written.

    Attributes:
        ratings: By group: `people`, or `judge NAME`.
        notes: What was left out, replaced or told apart when the votes were read.
        report: The page's content.
        page: The page.
    """

    ratings: dict[str, Ratings]
    notes: list[str]
    report: Report
    page: Path


def rate_votes(
    paths: Sequence[Path], folder: Path, *, voters: Voters = "all", ties: TieModel = "davidson"
) -> RatedVotes:
    """Rate models from files of votes, from Python; writes ratings.json, report.html, report.md and ratings.png.

    Args:
        paths: Files of votes, as `lit_sft.votes` writes them.
        folder: Where to write; created if missing.
        voters: Whose votes count.
        ties: How ties count.

    Raises:
        UserError: If a file cannot be read, a line is not a vote, or there are no votes.
    """
    ballots = read_ballots(paths, voters)
    ratings = {group: rate(comparisons, ties=ties) for group, comparisons in ballots.groups.items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "ratings.json", to_json(ratings, ballots, ties))
    report = _report(paths, ratings, ballots, ties, folder)
    return RatedVotes(ratings, ballots.notes, report, write_pages(report, folder))


def to_json(ratings: Mapping[str, Ratings], ballots: Ballots, ties: TieModel) -> dict[str, Any]:
    """All numbers; ratings and effects are in logits, with points beside them."""
    return {
        "ties": ties,
        "points_per_logit": POINTS,
        "mean_points": MEAN,
        "notes": ballots.notes,
        "sampling_settings": ballots.sampling,
        "groups": {group: _group_json(found) for group, found in ratings.items()},
    }


def _group_json(found: Ratings) -> dict[str, Any]:
    return {
        "votes": found.num_votes,
        "voters": found.num_voters,
        "prompts": found.num_prompts,
        "models": [
            {
                "model": player.player,
                "points": MEAN + POINTS * player.rating.value,
                "rating": _estimate_json(player.rating),
                "rating_at_equal_length": player.at_equal_length and _estimate_json(player.at_equal_length),
                "ranks": list(player.ranks),
                "voters": player.num_voters,
                "prompts": player.num_prompts,
                **_record_json(player.record),
            }
            for player in found.players
        ],
        "pairs": [
            {
                "first": pair.first,
                "second": pair.second,
                "told_apart": pair.is_told_apart,
                "difference": _estimate_json(pair.difference),
                "p_value": pair.difference.p_value,
                "adjusted_p": pair.adjusted_p,
                "direct": pair.record and _record_json(pair.record),
            }
            for pair in found.pairs
        ],
        "effects": {name: _estimate_json(estimate) for name, estimate in found.effects.items()},
        "not_rated": found.unrated,
        "notes": found.notes,
    }


def _record_json(record: Record) -> dict[str, int]:
    return {"votes": record.votes, **asdict(record)}


def _estimate_json(estimate: Estimate) -> dict[str, float]:
    return {
        "value": estimate.value,
        "standard_error": estimate.standard_error,
        "low": estimate.low,
        "high": estimate.high,
    }


def _report(
    paths: Sequence[Path], ratings: Mapping[str, Ratings], ballots: Ballots, ties: TieModel, folder: Path
) -> Report:
    tables: list[Table] = [effects_table(ratings)]
    for group, found in ratings.items():
        tables += [players_table(group, found), pairs_table(group, found)]
    picture = draw_ratings(ratings, folder / "ratings.png")
    return Report(
        question="Which model do voters prefer?",
        answers=in_words(ratings),
        design=[*_design(paths, ratings, ballots, ties), *ballots.notes],
        tables=[table for table in (*tables, unrated_table(ratings)) if table.rows],
        charts=[("Ratings with 95 % intervals over voters and prompts", picture)] if picture else [],
        headline=headline(ratings) if any(found.players for found in ratings.values()) else None,
    )


def _design(paths: Sequence[Path], ratings: Mapping[str, Ratings], ballots: Ballots, ties: TieModel) -> list[str]:
    several = [name for name, num in ballots.sampling.items() if num > 1]
    return [
        f"Votes from {', '.join(path.name for path in paths)}.",
        *(
            f"{group}: {found.num_votes:,} votes, {found.num_voters:,} voters, {found.num_prompts:,} prompts."
            for group, found in ratings.items()
        ),
        f"Bradley-Terry model with an effect of position; ties: {_TIES[ties]}. Intervals allow for votes of one voter, "
        "and votes on one prompt, being alike.",
        *([f"Answers were sampled with different settings: {', '.join(several)}."] if several else []),
    ]
