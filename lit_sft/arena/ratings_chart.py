"""The picture of ratings: every player's rating with its interval, by people and judges."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from lit_sft.arena.ratings import Ratings
from lit_sft.arena.ratings_tables import MEAN, POINTS
from lit_sft.reporting.pictures import plain_text, save_picture

_MOST_PLAYERS = 60
_MOST_GROUPS = 6


def draw_ratings(ratings: Mapping[str, Ratings], path: Path) -> Path | None:
    """Draw the ratings; None if no player has one. If there are many, the best are shown."""
    groups = {group: found for group, found in ratings.items() if found.players}
    names = list(dict.fromkeys(player.player for found in groups.values() for player in found.players))
    if not names:
        return None
    shown, drawn = names[:_MOST_PLAYERS], dict(list(groups.items())[:_MOST_GROUPS])
    figure = Figure(figsize=(7, 1.4 + len(shown) * (0.2 + 0.2 * len(drawn))))
    axis = figure.subplots()
    for number, (group, found) in enumerate(drawn.items()):
        players = [player for player in found.players if player.player in shown]
        places = [len(shown) - 1 - shown.index(player.player) - 0.6 * number / len(drawn) for player in players]
        values = [MEAN + POINTS * player.rating.value for player in players]
        widths = [POINTS * player.rating.half_width for player in players]
        axis.errorbar(values, places, xerr=widths, fmt="o", color=f"C{number}", capsize=3, label=plain_text(group))
    axis.axvline(MEAN, color="black", linewidth=0.8)
    axis.set_yticks([len(shown) - 1 - place for place in range(len(shown))], map(plain_text, shown))
    cut = f"; the first {len(shown)} of {len(names)}" if len(shown) < len(names) else ""
    axis.set_xlabel(f"rating in points, 95 % intervals{cut}", fontsize=9)
    if len(groups) > 1:
        axis.legend(fontsize=8)
    return save_picture(figure, path)
