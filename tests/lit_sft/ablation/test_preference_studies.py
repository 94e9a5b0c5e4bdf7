"""Studies of preference pairs: how often the chosen answer is likelier, paired by pair."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_modules.errors import UserError
from lit_sft.ablation.collect import Collected
from lit_sft.ablation.comparison import Comparison, Findings
from lit_sft.ablation.run_files import TrialResult, read_trial
from lit_sft.ablation.study import Study
from lit_sft.ablation.study_report import make_report


def run_on_pairs(folder: Path, arm: str, seed: int, preferred: list[int]) -> TrialResult:
    """A tested run on disk, read back: a record for each pair, with 1 if its chosen answer is likelier."""
    run = folder / f"{arm}-{seed}"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(yaml.safe_dump({"seed_everything": seed}), encoding="utf-8")
    result = {"mask": "output_only", "versions": {}, "files": ["test_records.jsonl"]}
    (run / "result.json").write_text(json.dumps(result), encoding="utf-8")
    rows: list[dict[str, Any]] = [
        {"origin": f"pairs:{n}", "nats": {"answer": 2.0 + n}, "tokens": {"answer": 4}, "preferred": value, "pairs": 1}
        for n, value in enumerate(preferred)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (run / "test_records.jsonl").write_text(lines, encoding="utf-8")
    found = read_trial(run / "result.json", arm)
    assert found is not None
    assert not found.damaged
    return found


def compared(folder: Path, *, cut: int = 6) -> Comparison:
    """Three seeds of an arm that is right about 2 of 6 pairs, and of one that is right about 4 or 5."""
    results = {}
    for seed in range(3):
        results["plain", seed] = run_on_pairs(folder, "plain", seed, [1, 1, 0, 0, 0, 0])
        results["dpo", seed] = run_on_pairs(folder, "dpo", seed, [1, 1, 1, 1, seed % 2, 0][:cut])
    return Comparison(["plain", "dpo"], results)


def test_accuracy_is_the_share_of_pairs_and_its_difference_is_paired(tmp_path: Path) -> None:
    comparison = compared(tmp_path)
    mean, weight = comparison.mean("preference_accuracy", "dpo")
    assert mean.value == pytest.approx(13 / 18)
    assert (mean.num_seeds, mean.num_rows, weight) == (3, 6, 6)
    (difference,) = [each for each in Findings(comparison).differences if each.name == "preference_accuracy"]
    assert difference.metric == "preference_accuracy"
    assert difference.estimate.value == pytest.approx(13 / 18 - 6 / 18)
    assert difference.estimate.standard_error > 0
    assert difference.sense == 1


def test_other_pairs_are_refused(tmp_path: Path) -> None:
    refused = {metric: why for metric, _, why in Findings(compared(tmp_path, cut=5)).refused}
    why = "not comparable: scored on different pairs (5 records, 5 pairs; 6 records, 6 pairs)"
    assert refused["preference_accuracy"] == why


def test_report_answers_in_percentage_points(tmp_path: Path) -> None:
    comparison = compared(tmp_path)
    collected = Collected(comparison.arms, comparison.results, {}, comparison.settings, primary="preference_accuracy")
    report = make_report(comparison, collected, tmp_path)
    assert report.headline is not None
    first = [cell if isinstance(cell, str) else cell.text for cell in report.headline.rows[0]]
    assert first[:2] == ["preference accuracy", "33.3%"]
    assert first[2].startswith("72.2% (+38.9, ")
    assert "its preference accuracy is 38.9 percentage points higher, 72.2% against 33.3%" in report.answers[0]
    tables = {table.title: table for table in report.tables}
    assert [row[0] for row in tables["Preference pairs"].rows] == ["preference accuracy"]
    assert tables["Preference pairs"].rows[0][-1] == "6 pairs, 6 records"
    assert "preference accuracy" not in [row[0] for row in tables["Losses: nats per token"].rows]


def test_a_study_may_ask_for_preference_accuracy_but_not_for_what_has_no_records() -> None:
    arms = {"axes": {"model.objective.name": ["next_token", "dpo"]}}
    assert Study("pairs", ["x.yaml"], primary="preference_accuracy", **arms)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"primary 'reward_margin': expected one of .*, preference_accuracy"):
        Study("pairs", ["x.yaml"], primary="reward_margin", **arms)  # type: ignore[arg-type]
