"""Two models compared item by item."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_rel

from lit_sft.evaluation.evaluation_report import make_report
from lit_sft.evaluation.item_results import Results, SetResult, compare, read_set, write_set
from lit_sft.evaluation.scores import Scored, Skipped
from lit_sft.evaluation.suite import ChoiceSet, Suite
from lit_sft.reporting.page import render_html


def result(kind: str, rows: dict[str, dict[str, tuple[float, float]]], group: str = "") -> SetResult:
    scored = {item: Scored(item, metrics, group or item[0]) for item, metrics in rows.items()}
    return SetResult(kind, scored, [], 1.0)


def right(values: list[int], name: str = "accuracy/cloze/sum") -> dict[str, dict[str, tuple[float, float]]]:
    return {f"{'ab'[n % 2]}{n}": {name: (float(value), 1.0)} for n, value in enumerate(values)}


def results_of(before: SetResult, after: SetResult, name: str = "s") -> Results:
    results = Results(["base", "tuned"])
    results.results = {("base", name): before, ("tuned", name): after}
    return results


BEFORE = [0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
AFTER = [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0]


def test_right_and_wrong_answers_are_compared_by_mcnemars_test() -> None:
    change = results_of(result("choices", right(BEFORE)), result("choices", right(AFTER))).change(
        "tuned", "s", "accuracy/cloze/sum"
    )
    assert change is not None
    assert change.p_value == pytest.approx(binomtest(7, 8).pvalue)
    assert (change.before, change.after) == pytest.approx((5 / 12, 11 / 12))
    assert change.sense == 1
    same = results_of(result("choices", right(BEFORE)), result("choices", right(BEFORE))).change(
        "tuned", "s", "accuracy/cloze/sum"
    )
    assert same is not None
    assert (same.p_value, same.sense) == (1.0, 0)


def test_losses_are_compared_by_students_test_and_less_is_better() -> None:
    draw = np.random.default_rng(0)
    one, other = draw.normal(3, 1, 30), draw.normal(3, 1, 30) - 1
    rows = [{f"i{n}": {"nll": (float(v), 1.0)} for n, v in enumerate(values)} for values in (one, other)]
    change = results_of(result("text", rows[0]), result("text", rows[1])).change("tuned", "s", "nll")
    assert change is not None
    assert change.p_value == pytest.approx(ttest_rel(other, one).pvalue)
    assert change.sense == 1


def test_means_are_over_tokens_and_differences_over_shared_items() -> None:
    before = result("text", {"x": {"nll": (10.0, 5.0)}, "y": {"nll": (3.0, 1.0)}, "z": {"nll": (9.0, 9.0)}})
    after = result("text", {"x": {"nll": (5.0, 5.0)}, "y": {"nll": (3.0, 1.0)}})
    results = results_of(before, after)
    mean = results.mean("base", "s", "nll")
    change = results.change("tuned", "s", "nll")
    assert mean is not None
    assert change is not None
    assert mean.value == pytest.approx(22 / 15)
    assert (change.before, change.after, change.estimate.num_rows) == (pytest.approx(13 / 6), pytest.approx(8 / 6), 2)


def test_losses_over_different_tokens_are_compared_per_byte_only() -> None:
    before = result(
        "conversations", {f"i{n}": {"nll/answer": (9.0, 3.0), "bits_per_byte/answer": (9.0, 4.0)} for n in range(4)}
    )
    after = result(
        "conversations", {f"i{n}": {"nll/answer": (8.0, 2.0), "bits_per_byte/answer": (8.0 + n, 4.0)} for n in range(4)}
    )
    results = results_of(before, after)
    (change,), refused = compare(results)
    assert not refused
    assert change.metric == "bits_per_byte/answer"
    with pytest.raises(ValueError, match="scored on different tokens"):
        results.change("tuned", "s", "nll/answer")


def test_p_values_of_parts_are_adjusted_within_a_set() -> None:
    changes, _ = compare(results_of(result("choices", right(BEFORE)), result("choices", right(AFTER))))
    assert [change.group for change in changes] == ["", "a", "b"]
    whole, *parts = changes
    assert whole.adjusted_p == whole.p_value
    assert sorted(change.estimate.num_rows for change in parts) == [6, 6]
    assert min(p.adjusted_p for p in parts) == pytest.approx(2 * min(p.p_value for p in parts))


def test_single_item_gives_no_p_value() -> None:
    changes, _ = compare(results_of(result("choices", right([0])), result("choices", right([1]))))
    assert all(math.isnan(change.estimate.standard_error) for change in changes)
    assert not any(change.is_found for change in changes)


@pytest.mark.parametrize(
    "pair", [(1.0, 0.0), (1.0, -1.0), (1.0, math.nan), (math.nan, 1.0), (math.inf, 1.0), (1.0, math.inf)]
)
def test_metric_without_weight_or_value_skips_the_item_but_keeps_the_page(
    tmp_path: Path, pair: tuple[float, float]
) -> None:
    metrics = {"accuracy/cloze/sum": pair, "accuracy/letter/sum": pair}
    odd = {"x": metrics, "y": metrics | {"accuracy/cloze/sum": (1.0, 1.0)}}
    before, after = (result("choices", {**odd, "z": {"accuracy/cloze/sum": (right, 1.0)}}) for right in (0.0, 1.0))
    results = results_of(before, after)
    (change,) = (change for change in compare(results)[0] if not change.group)
    assert change.estimate.num_rows == 2
    report = make_report(Suite(choices={"s": ChoiceSet()}), results, tmp_path, about=[])
    assert "accuracy, letter, sum" in render_html(report)
    skipped = Skipped()
    assert Scored("x", metrics).with_means(skipped).metrics == {}
    assert skipped.count == 2
    assert "x: accuracy/cloze/sum is" in skipped.reasons[0]


def test_metric_outside_0_to_1_is_shown_unchanged(tmp_path: Path) -> None:
    rows = {f"i{n}": {"exact_match": (50.0 + n, 1.0), "acc": (-1.0, 1.0)} for n in range(3)}
    report = make_report(
        Suite(choices={"s": ChoiceSet()}),
        results_of(result("harness", rows), result("harness", rows)),
        tmp_path,
        about=[],
    )
    assert "exact match" in render_html(report)


@pytest.mark.parametrize(
    "damage",
    [
        b'{"item": "b", "figures"', b"[]", b"\xff", b"[" * 100_000,
        b'{"item": "b", "figures": [], "group": "", "details": {}}',
        b'{"item": "b", "figures": {"x": null}, "group": "", "details": {}}',
        b'{"item": "b", "figures": {"x": [1, 1e999]}, "group": "", "details": []}',
        b'{"item": ["b"], "figures": {}, "group": "", "details": {}}',
    ],
    ids=range(8),
)  # fmt: skip
@pytest.mark.parametrize("file", ["s.json", "s.jsonl"])
def test_scores_that_are_damaged_are_not_read(tmp_path: Path, damage: bytes, file: str) -> None:
    rows = {name: Scored(name, {"x": (1.0, 2.0)}) for name in ("a", "b")}
    write_set(tmp_path, "s", "key", SetResult("choices", rows, ["why"], 2.5, 7))
    known = read_set(tmp_path, "s", "key")
    assert known is not None
    assert known.num_skipped == 8
    lines = (tmp_path / file).read_bytes().splitlines()
    (tmp_path / file).write_bytes(b"\n".join([*lines[:-1], damage]))
    assert read_set(tmp_path, "s", "key") is None


def test_scores_are_read_back_for_the_same_key_only(tmp_path: Path) -> None:
    made = SetResult(
        "choices", {"a\u2028": Scored("a\u2028", {"x": (1.0, 2.0)}, "g", {"answer": "喂\n"})}, ["b: why"], 2.5
    )
    write_set(tmp_path / "m", "s", "key", made)
    assert read_set(tmp_path / "m", "s", "key") == made
    assert read_set(tmp_path / "m", "s", "other") is None
    (tmp_path / "m" / "s.jsonl").write_text('{"item": ')
    assert read_set(tmp_path / "m", "s", "key") is None


def test_a_fault_of_the_code_is_not_reported_as_a_comparison_that_is_impossible(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("expected sums (S, R)")

    results = results_of(result("choices", right(BEFORE)), result("choices", right(AFTER)))
    monkeypatch.setattr(Results, "change", fail)
    with pytest.raises(ValueError, match="expected sums"):
        compare(results)
