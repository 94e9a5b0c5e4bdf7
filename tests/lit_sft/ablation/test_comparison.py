"""Which trials are paired when some are missing, diverged or were scored on different tokens."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lit_sft.ablation.collect import Collected, TrialResult
from lit_sft.ablation.comparison import Comparison, Findings
from lit_sft.ablation.study_charts import draw_curves, draw_differences
from lit_sft.ablation.study_report import make_report


def trial(arm: str, seed: int, nats: list[float], tokens: int = 2, **record: Any) -> TrialResult:
    sums = {"answer": {f"x.json:{row}": (value, float(tokens)) for row, value in enumerate(nats)}}
    return TrialResult(
        arm=arm,
        seed=seed,
        folder=Path(),
        result={"mask": "output_only", "data_fingerprint": "d", "test_fingerprint": "t", "versions": {}},
        record={
            "step": 4, "of": 4, "initial_weights": f"w{seed}", "order": ["a", "b"], "examples": 8, "tokens": 80,
            "supervised_tokens": 40, "seconds": 1.0, "peak_bytes": 10**8, **record,
        },
        sums=sums,
        curve=[(0, {"output_only": 3.0}), (4, {"output_only": nats[0]})],
        samples={},
        config={},
    )  # fmt: skip


def comparison(*trials: TrialResult, settings: dict[str, Any] | None = None) -> Comparison:
    arms = list(dict.fromkeys(t.arm for t in trials))
    return Comparison(arms, {(t.arm, t.seed): t for t in trials}, settings or {})


BASE = [trial("base", seed, [1.0 + seed, 2.0, 4.0]) for seed in range(3)]
BETTER = [trial("better", seed, [0.5 + seed, 1.5, 3.49]) for seed in range(3)]


def test_an_arm_is_paired_on_the_seeds_that_it_shares_with_the_baseline() -> None:
    found = comparison(*BASE, *BETTER, trial("once", 1, [2.0, 2.0, 4.0]), trial("never", 7, [1.0, 1.0, 1.0]))
    assert found.difference("answer", "better").num_seeds == 3
    once = found.difference("answer", "once")
    assert (once.num_seeds, once.value) == (1, 0.0)
    with pytest.raises(ValueError, match="no seed has a result for both never and base"):
        found.difference("answer", "never")
    assert found.mean("answer", "never")[0].value == pytest.approx(3 / 6)


def test_only_the_arm_scored_on_different_tokens_is_refused() -> None:
    findings = Findings(comparison(*BASE, *BETTER, trial("other", 0, [1.0, 2.0, 4.0], tokens=3)))
    assert {d.arm for d in findings.differences} == {"better"}
    (refused,) = findings.refused
    assert refused[:2] == ("answer", "other")
    assert "not comparable: scored on different tokens" in refused[2]


def test_diverged_arm_is_reported_and_does_not_affect_the_others(tmp_path: Path) -> None:
    diverged = [trial("diverged", seed, [math.nan, 2.0, 4.0]) for seed in range(3)]
    alone, both = comparison(*BASE, *BETTER), comparison(*BASE, *BETTER, *diverged)
    ours = {d.arm: d for d in Findings(both).differences}
    assert ours["better"].adjusted_p == Findings(alone).differences[0].adjusted_p
    assert not ours["diverged"].is_known
    report = make_report(both, Collected(both.arms, both.results, {}), tmp_path)
    assert any(
        "“diverged” cannot be tested against “base”: too few values, values that are not finite" in answer
        for answer in report.answers
    )
    assert any("“better” is better than “base”" in answer for answer in report.answers)
    assert all("no more than noise" not in answer for answer in report.answers)
    assert [path.name for _, path in report.charts] == ["differences.png", "curves.png"]


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"initial_weights": "other"}, "initial weights"),
        ({"initial_adapters": "other"}, "initial adapters"),
        ({"order": ["a", "c"]}, "training records of every step"),
        ({"step": 3}, "steps of the budget"),
    ],
)
def test_conditions_for_pairing_are_checked(changed: dict[str, Any], what: str) -> None:
    checks = comparison(*BASE, *BETTER[:2], trial("better", 2, [1.0, 2.0, 3.0], **changed)).checks()
    assert [(check.what, check.holds) for check in checks if check.holds != "yes"] == [(what, "NO")]
    assert all(check.holds == "yes" for check in comparison(*BASE, *BETTER).checks())


@pytest.mark.parametrize(
    ("changed", "setting", "holds"),
    [
        ({"order": ["a", "c"]}, "data.train_fraction", "by design"),
        ({"order": ["a", "c"]}, "data.batch_size", "by design"),
        ({"order": ["a", "c"]}, "data.mask", "NO"),
        ({"initial_adapters": "other"}, "model.backbone.lora.rank", "by design"),
        ({"initial_weights": "other"}, "model.backbone.lora.rank", "NO"),
        ({"initial_weights": "other"}, "model.backbone.add_special_tokens", "by design"),
    ],
)
def test_intended_differences_are_marked_by_design(changed: dict[str, Any], setting: str, holds: str) -> None:
    other = [trial("other", seed, [1.0, 2.0, 3.0], **changed) for seed in range(3)]
    found = comparison(*BASE, *other, settings={"base": {setting: 1, "x": 3}, "other": {setting: 2, "x": 3}})
    (check,) = [check for check in found.checks() if check.holds != "yes"]
    assert check.holds == holds
    assert (setting in check.why) == (holds == "by design")


def test_what_was_not_recorded_is_not_called_a_difference(tmp_path: Path) -> None:
    runs = [replace(trial(arm, 0, [1.0, 2.0, nats]), record={}) for arm, nats in (("base", 3.0), ("other", 4.0))]
    found = comparison(*runs)
    unknown = [check.what for check in found.checks() if check.holds == "unknown"]
    assert unknown == [
        "initial weights",
        "initial adapters",
        "training records of every step",
        "steps of the budget",
    ]
    answers = make_report(found, Collected(found.arms, found.results, {}), tmp_path).answers
    assert f"Not recorded, so not checked: {', '.join(unknown)}." in answers
    assert not any("differ in more than their settings" in answer for answer in answers)


def test_a_difference_counts_even_if_another_arm_was_not_recorded() -> None:
    silent = [replace(each, arm="silent", record={}) for each in BASE]
    differs = [trial("differs", seed, [1.0, 2.0, 3.0], initial_weights="other") for seed in range(3)]
    checks = {check.what: check.holds for check in comparison(*BASE, *silent, *differs).checks()}
    assert (checks["initial weights"], checks["initial adapters"]) == ("NO", "unknown")


def test_identical_metrics_give_no_p_value(tmp_path: Path) -> None:
    same = [trial("same", t.seed, [nats for nats, _ in t.sums["answer"].values()]) for t in BASE]
    found = comparison(*BASE, *same)
    (difference,) = Findings(found).differences
    assert difference.is_zero
    assert not difference.is_known
    report = make_report(found, Collected(found.arms, found.results, {}), tmp_path)
    assert any("“same” and “base” are identical in nats per answer token" in answer for answer in report.answers)


@pytest.mark.parametrize(
    ("num_seeds", "caveat"), [(1, "With one seed, the"), (2, "With two seeds, the variation"), (3, None)]
)
def test_too_few_seeds_are_a_caveat(num_seeds: int, caveat: str | None, tmp_path: Path) -> None:
    found = comparison(*BASE[:num_seeds], *BETTER[:num_seeds])
    answers = make_report(found, Collected(found.arms, found.results, {}), tmp_path).answers
    assert [line[: len(caveat or "")] for line in answers[1:]] == ([caveat] if caveat else [])


def test_data_orders_are_compared_up_to_the_shorter_one() -> None:
    longer = [trial("longer", seed, [1.0, 2.0, 4.0], order=["a", "b", "c"]) for seed in range(3)]
    assert all(check.holds == "yes" for check in comparison(*BASE, *longer).checks())


def test_charts_show_names_verbatim(tmp_path: Path) -> None:
    odd = [trial(r"$\frac$ [b] <i>", seed, [0.5 + seed, 1.5, 3.0]) for seed in range(3)]
    found = comparison(*BASE, *odd)
    assert draw_curves(found, "answer", tmp_path / "c.png") == tmp_path / "c.png"
    assert draw_differences(Findings(found).differences, "answer", tmp_path / "d.png") == tmp_path / "d.png"
