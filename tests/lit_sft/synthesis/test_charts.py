"""The pictures of a synthesis: none of nothing, and counts in whole numbers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from lit_sft.synthesis import charts


@pytest.mark.parametrize("points", [[], [(4, 900)], [(0, 900), (0, 1800)], [(4, 0), (8, 0)]])
def test_costs_of_nothing_are_not_drawn(tmp_path: Path, points: list[tuple[float, float]]) -> None:
    assert charts.draw_costs(points, "tokens", tmp_path / "costs.png") is None
    assert not list(tmp_path.iterdir())


def test_lengths_and_counts_are_whole_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(charts, "save_picture", lambda figure, path: drawn.append(figure))
    charts.draw_lengths({"questions": {"en": Counter({9: 1})}, "answers": {"en": Counter({3: 2, 4: 1})}}, tmp_path)
    charts.draw_yield(2, [{"name": "lengths", "refused": 1}], tmp_path)
    charts.draw_costs([(1, 30.0), (2, 70.0)], "tokens", tmp_path)
    ticks = [list(panel.xaxis.get_majorticklocs()) for figure in drawn for panel in figure.axes]
    assert len(ticks) == 5
    assert all(float(tick).is_integer() for each in ticks for tick in each), ticks
    assert 9 in ticks[0]
