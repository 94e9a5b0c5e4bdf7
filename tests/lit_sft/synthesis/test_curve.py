"""The cost curve: cumulated counts, at a bounded number of points."""

from __future__ import annotations

import pytest

from lit_sft.synthesis.curve import CostCurve


def curve_of(num: int) -> CostCurve:
    curve = CostCurve()
    for _ in range(num):
        curve.add(pairs_read=5, pairs_accepted=3, tokens_read=900, tokens_written=120)
    return curve


@pytest.mark.parametrize("num", [0, 1, 199, 200, 201, 12_345])
def test_points_are_cumulated_bounded_and_end_with_the_total(num: int) -> None:
    points = curve_of(num).points()
    assert len(points) <= 201
    assert all(point == [n, 5 * n, 3 * n, 900 * n, 120 * n] for point in points for n in point[:1])
    assert [point[0] for point in points] == sorted({point[0] for point in points})
    assert (points[-1][0] if points else 0) == num


def test_short_runs_have_a_point_for_every_article() -> None:
    assert [point[0] for point in curve_of(150).points()] == list(range(1, 151))
