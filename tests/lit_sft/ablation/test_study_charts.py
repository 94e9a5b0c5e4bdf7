"""The pictures of a study's report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from lit_sft.ablation import study_charts
from lit_sft.ablation.comparison import Findings
from lit_sft.ablation.study_charts import draw_differences
from tests.lit_sft.ablation.test_comparison import comparison, trial


def test_every_panel_names_its_unit_and_direction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(study_charts, "save_picture", lambda figure, path: drawn.append(figure))
    runs = []
    for arm, better in (("base", 0.0), ("other", 1.0)):
        one = trial(arm, 0, [1.0, 2.0, 3.0 - better])
        shares = dict(zip(one.sums["answer"], [(0.0, 1.0), (0.0, 1.0), (better, 1.0)], strict=True))
        answers = dict.fromkeys(("exact_match", "rougeL_mixed", "num_tokens"), shares)
        runs.append(replace(one, sums=one.sums | answers))
    draw_differences(Findings(comparison(*runs)).differences, "answer", tmp_path / "differences.png")
    assert [(axis.get_title(), axis.get_xlabel()) for axis in drawn[0].axes] == [
        ("answer tokens", "difference in nats per token (lower is better)"),
        ("exact match", "difference in percentage points (higher is better)"),
        ("ROUGE-L", "difference (higher is better)"),
    ]
