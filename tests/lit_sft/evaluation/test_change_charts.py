"""The pictures of an evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from lit_sft.evaluation import change_charts
from lit_sft.evaluation.change_charts import draw_headline
from lit_sft.reporting.formatting import value_with_error
from lit_sft.reporting.statistics import Estimate


def test_a_picture_shows_the_interval_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(change_charts, "save_picture", lambda figure, path: drawn.append(figure))
    mean = Estimate(1.0, 0.0, 9, 1, 10)
    draw_headline([("a", "accuracy/cloze/sum", {"m": mean})], tmp_path / "metrics.png")
    (bars,) = drawn[0].axes[0].containers
    ((low, _), (high, _)) = bars.lines[2][0].get_segments()[0]
    assert (low, high) == (pytest.approx(72.2, abs=0.05), pytest.approx(100.0))
    assert value_with_error("accuracy/cloze/sum", mean) == "100.0% (72.2 to 100.0)"
