from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_sft.ablation.budget import Plan
from lit_sft.ablation.study import Budget, read_study
from lit_sft.ablation.trials import TrialFiles

Write = Callable[..., str]


def study(write: Write, **values: Any) -> Any:
    return read_study(write("masks.yaml", yaml.safe_dump({"base": "base.yaml", **values})))


def test_axes_give_every_combination_and_the_baseline_comes_first(write: Write) -> None:
    axes = {"data.mask": ["output_only", "whole_sequence"], "model.backbone.lora.rank": [1, 8]}
    found = study(write, axes=axes, baseline="mask=whole_sequence, rank=1", seeds=[3, 4])
    assert found.name == "masks"
    assert [arm.name for arm in found.all_arms()] == [
        "mask=whole_sequence, rank=1", "mask=output_only, rank=1", "mask=output_only, rank=8",
        "mask=whole_sequence, rank=8",
    ]  # fmt: skip
    assert found.all_arms()[2].settings == {"data.mask": "output_only", "model.backbone.lora.rank": 8}
    trials = found.trials(Path("runs"))
    assert [trial.seed for trial in trials] == [3] * 4 + [4] * 4
    assert len({trial.folder for trial in trials}) == 8


def test_named_arms_change_several_settings_together(write: Write) -> None:
    arms = {"rank 1": {"r": 1, "alpha": 2}, "rank 8": {"r": 8, "alpha": 16}}
    found = study(write, arms=arms, axes={"data.mask": ["output_only"]}).all_arms()
    assert found[1].settings == {"r": 8, "alpha": 16, "data.mask": "output_only"}
    assert found[1].slug == "rank_8_mask=output_only"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "at least two arms"),
        ({"axes": {"data.mask": ["output_only"]}}, "at least two arms"),
        ({"axes": {"data.mask": "output_only"}}, "axes.data.mask: expected a list of values"),
        ({"arms": {"a": [1]}}, "arms.a: expected a set of settings"),
        ({"axis": {}}, r"unknown setting axis; did you mean axes\?$"),
        ({"x": {}}, "unknown setting x; the settings are .*axes"),
        ({"axes": {"x": [1, 2]}, "baseline": "x=3"}, "baseline 'x=3': no such arm; the arms are x=1, x=2"),
        ({"axes": {"x": [1, 2]}, "seeds": [1, 1]}, "seeds .*: expected a list of distinct numbers"),
        ({"axes": {"x": [1, 1]}}, "two are equal or differ only in punctuation"),
        ({"axes": {"x": [1, 2]}, "budget": {"equal": "epochs"}}, "budget.equal 'epochs': expected one of 'steps'"),
        (
            {"axes": {"x": [1, 2]}, "budget": {"equal": "steps", "amount": 0}},
            "budget.amount 0: expected more than 0",
        ),
        ({"axes": {"x": [1, 2]}, "budget": 5}, "budget: expected names and values"),
        ({"axes": {"x": [1, 2]}, "budget": {"amount": "ten"}}, "budget.amount 'ten': expected a number"),
        ({"axes": {"x": [1, 2]}, "primary": "answr"}, "primary 'answr': expected one of .*answer"),
        ({"axes": {"x": [1, 2]}, "seeds": 3}, "seeds 3: expected a list of whole numbers"),
        (
            {"axes": {"x": [1, 2]}, "settings": {"seed_everything": 1}},
            "seed_everything: cannot .*; use `seeds` instead",
        ),
        (
            {"axes": {"trainer.max_epochs": [1, 2]}},
            "trainer.max_epochs: cannot be set in a study; use `budget` instead",
        ),
        ({"arms": {"a": {"run.name": "x"}, "b": {}}}, "run.name: cannot be set in a study"),
        ({"arms": ["a", "b"]}, "arms: expected names and values"),
        (
            {"arms": {"a": {"run.allow_code": "x"}, "b": {}}},
            "run.allow_code: cannot be set in a study|is allowed on the command",
        ),
        (
            {"axes": {"x": [1, 2]}, "settings": {"model.backbone.trust_remote_code": True}},
            "trust_remote_code is allowed on the",
        ),
        (
            {"axes": {"x": [1, 2]}, "settings": {"model.backbone": {"trust_remote_code": True}}},
            "trust_remote_code is allowed on",
        ),
        ({"axes": {"x": [1, 2]}, "name": "../x"}, "name '../x': expected a plain name"),
        ({"axes": {"x": [1, 2]}, "name": "x\u202ey"}, "expected a plain name"),
        ({"axes": {"x": [1, 2]}, "budget": {"amount": float("nan")}}, "budget.amount nan: expected more than 0"),
        ({"axes": {"x": [1, 2]}, "budget": {"amount": float("inf")}}, "budget.amount inf: expected more than 0"),
        ({"axes": {"x": [1, 2]}, "answers": "many"}, "answers 'many': expected a whole number"),
        ({"axes": {"x": [1, 2]}, "checkpoint": "first"}, "checkpoint 'first': expected one of 'last', 'best'"),
    ],
)
def test_error_names_the_file_and_the_setting(write: Write, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"masks\.yaml: .*{message}"):
        study(write, **values)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "not valid YAML"),
        ("- 1", "expected names and values"),
        ("axes: {}", "no `base`"),
        ("base: a.yaml\narms:\n  one: {x: 1}\n  one: {x: 2}", "duplicate key 'one'"),
    ],
)
def test_file_that_is_not_a_study_is_refused(write: Write, content: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"broken\.yaml:.* {message}"):
        read_study(write("broken.yaml", content))


def test_arms_whose_values_differ_in_a_late_digit_have_different_names(write: Write) -> None:
    names = [arm.name for arm in study(write, axes={"model.optimizer.lr": [1.0000001, 1.0000002, 1e-4]}).all_arms()]
    assert names == ["lr=1.0000001", "lr=1.0000002", "lr=0.0001"]


def test_a_value_out_of_range_is_named_once(write: Write) -> None:
    with pytest.raises(ValueError, match=r"masks\.yaml: budget\.amount nan: expected more than 0, or null"):
        study(write, axes={"x": [1, 2]}, budget={"amount": float("nan")})


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ValueError, match=r"no/study\.yaml: no such file"):
        read_study("no/study.yaml")


def test_budget_is_in_steps_by_default() -> None:
    assert Budget() == Budget("steps", None)


def test_resumed_trial_may_run_the_code_that_its_study_names(write: Write, tmp_path: Path) -> None:
    made = study(write, axes={"x": [1, 2]}, seeds=[0])
    trusting = replace(made, settings={"model.backbone.trust_remote_code": True})
    files = TrialFiles(trusting, trusting.trials(tmp_path)[0])
    plan = Plan(code={files.trial.arm.name: {"my.Own", "my.Other"}})
    trust = ["--run.allow_code", "my.Other,my.Own", "--model.backbone.trust_remote_code=true"]
    (files.run / "checkpoints").mkdir(parents=True)
    (files.run / "checkpoints" / "last.ckpt").touch()
    assert files.command(plan)[-5:] == ["--resume", str(files.run), *trust]
    (files.run / "fit.json").touch()
    assert files.command(plan)[-3:] == trust
