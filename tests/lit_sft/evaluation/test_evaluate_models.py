"""What remains of an evaluation when the search of the training data fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data_modules.errors import UserError
from lit_sft.evaluation import evaluate_models
from lit_sft.evaluation.evaluate_models import _about_sets, _exposures, _seen
from lit_sft.evaluation.report_tables import exposure_table
from lit_sft.evaluation.suite import ChoiceSet, PromptSet, Suite
from tests.lit_sft.evaluation.test_item_results import result, results_of, right

SUITE = Suite(choices={"s": ChoiceSet()}, trained_on=["train.json"])


def fail(*_: Any) -> Any:
    raise KeyError("labels")


def refuse(*_: Any) -> Any:
    raise UserError("train.json: no such file; check the path.")


@pytest.mark.parametrize("found", [fail, refuse])
def test_a_failed_search_for_items_is_a_failure_and_not_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: Any
) -> None:
    monkeypatch.delenv("LIT_SFT_DEBUG", raising=False)
    monkeypatch.setattr(evaluate_models, "find_seen", found)
    monkeypatch.setattr(evaluate_models, "training_data_of", found)
    results = results_of(result("choices", right([0, 1])), result("choices", right([1, 1])))
    results.about = {"base": "a model", "tuned": "another"}
    results.models.append("broken")
    results.failures["broken"] = "no such model"
    warned: list[str] = []
    assert _seen(SUITE, results, tmp_path, warned.append) == {}
    models = {"base": "gpt2", "tuned": "runs/x", "broken": "nowhere"}
    assert _exposures(SUITE, models, results, tmp_path, print, warned.append) == {}
    assert results.failures.keys() == {"broken", "trained_on", "base, training data", "tuned, training data"}
    assert len(warned) == 3
    assert (tmp_path / "errors.log").exists() == (found is fail)
    rows = exposure_table(SUITE, results, {}, {}).rows
    assert [row[-1] for row in rows[:3]] == ["not searched; see “Not scored or not compared”"] * 3


def test_only_a_model_without_a_run_is_called_no_run() -> None:
    results = results_of(result("choices", right([0, 1])), result("choices", right([1, 1])))
    rows = exposure_table(Suite(choices={"s": ChoiceSet()}), results, {}, {}).rows
    assert [row[-1] for row in rows] == ["unknown: not a run folder"] * 2


def test_settings_of_a_set_are_shown_without_python() -> None:
    suite = Suite(choices={"s": ChoiceSet(forms=("cloze", "letter"), rules=("sum",))}, prompts={"p": PromptSet(["Hi"])})
    choices, prompts = _about_sets(suite)
    assert choices.startswith("s: data general, forms cloze, letter, rules sum, content ")
    assert prompts.startswith("p: prompts Hi, max_new_tokens 128")
