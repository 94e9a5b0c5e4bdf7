"""What a study records about itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lit_sft.ablation.budget import Amounts, Plan
from lit_sft.ablation.run_study import _write_study
from lit_sft.ablation.study import Budget, Study


@pytest.mark.parametrize(
    ("budget", "reached", "text"),
    [
        (Budget("steps", 200), [{"steps": 200}] * 2, "equal steps: 200 per trial"),
        (Budget("steps"), [{"steps": 200}] * 2, "equal steps: 200 per trial"),
        (
            Budget("supervised_tokens", 12345),
            [{"supervised_tokens": 12400}, {"supervised_tokens": 12345}],
            "equal supervised tokens: 12,345 per trial; 12,345 to 12,400 after rounding to whole steps",
        ),
        (
            Budget("flops", 1.5e15),
            [{"flops": 1.6e15}] * 2,
            "equal flops: 1,500.0 TFLOP per trial; 1,600.0 TFLOP after rounding to whole steps",
        ),
        (Budget("flops", 5e9), [{"flops": 5e9}] * 2, "equal flops: 0.005 TFLOP per trial"),
    ],
)
def test_a_budget_is_written_in_whole_numbers(
    tmp_path: Path, budget: Budget, reached: list[dict[str, Any]], text: str
) -> None:
    study = Study("s", [], axes={"data.mask": ["whole_sequence", "output_only"]}, seeds=[0], budget=budget)
    amounts = {(arm.name, 0): Amounts(**each) for arm, each in zip(study.all_arms(), reached, strict=True)}
    _write_study(tmp_path / "s", study, Plan(amounts=amounts))
    assert json.loads((tmp_path / "s" / "study.json").read_text())["budget"] == text
