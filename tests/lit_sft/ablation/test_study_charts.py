"""The pictures of a study's report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from lit_sft.ablation import study_charts
from lit_sft.ablation.comparison import Findings
from lit_sft.ablation.study_charts import draw_curves, draw_differences
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


@pytest.mark.parametrize(("mask", "drawn_as"), [("answer", "output_only"), ("whole_sequence", "whole_sequence")])
def test_curves_label_names_the_loss_in_two_plain_lines(
    mask: str, drawn_as: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(study_charts, "save_picture", lambda figure, path: drawn.append(figure))
    points = [(step, {"output_only": 2.0 / step, "whole_sequence": 3.0 / step}) for step in (1, 2)]
    runs = [replace(trial(arm, 0, [1.0, 2.0]), curve=points) for arm in ("base", "other")]
    draw_curves(comparison(*runs), mask, tmp_path / "curves.png")
    (axis,) = drawn[0].axes
    assert axis.get_ylabel() == f"validation loss, nats per token\ntokens of the {drawn_as} mask"
    drawn[0].draw_without_rendering()
    label, picture = axis.yaxis.label.get_window_extent(), drawn[0].bbox
    assert picture.y0 <= label.y0 < label.y1 <= picture.y1


def test_a_panel_names_its_mask_without_backticks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(study_charts, "save_picture", lambda figure, path: drawn.append(figure))
    runs = [trial("base", 0, [1.0, 2.0, 3.0]), trial("other", 0, [1.0, 2.0, 4.0])]
    runs = [replace(run, sums={"output_only": run.sums["answer"]}) for run in runs]
    draw_differences(Findings(comparison(*runs)).differences, "output_only", tmp_path / "differences.png")
    assert drawn[0].axes[0].get_title() == "tokens of the output_only mask"
