"""How metrics, differences and verdicts are printed."""

from __future__ import annotations

import math

import pytest

from lit_sft.reporting.formatting import (
    change_of,
    difference_of,
    interval_bounds,
    interval_notes,
    label_of,
    scope_of,
    value_of,
    value_with_error,
    verdict_of,
)
from lit_sft.reporting.statistics import Estimate


@pytest.mark.parametrize(
    ("metric", "before", "after", "words"),
    [
        ("nll/answer", 2.967, 3.045, "its loss on answer tokens is 0.078 nats per token higher, 3.045 against 2.967"),
        ("bits_per_byte", 1.5, 1.25, "its loss is 0.250 bits per byte lower, 1.250 against 1.500"),
        ("exact_match", 0.09, 0.12, "its exact match is 3.0 percentage points higher, 12.0% against 9.0%"),
        ("rougeL_mixed", 0.5, 0.25, "its ROUGE-L is 0.250 lower, 0.250 against 0.500"),
        (
            "accuracy/cloze/sum",
            0.5,
            0.25,
            "its accuracy (cloze, sum) is 25.0 percentage points lower, 25.0% against 50.0%",
        ),
        ("nll/answer", 1.5, 1.5, "its loss on answer tokens is the same on average, 1.500 nats per token"),
        ("nll/answer", 1.5, 1.5 + 1e-9, "its loss on answer tokens is the same on average, 1.5000 nats per token"),
        ("exact_match", 0.25, 0.25, "its exact match is the same on average, 25.0%"),
    ],
)
def test_a_difference_in_words(metric: str, before: float, after: float, words: str) -> None:
    assert difference_of(metric, before, after) == words


@pytest.mark.parametrize(
    ("change", "is_known", "verdict"),
    [
        (0.0, False, "identical"),
        (1.0, False, "cannot be tested"),
        (math.nan, False, "not finite"),
        (math.inf, False, "not finite"),
        (1.0, True, "better"),
        (-1.0, True, "worse"),
    ],
)
def test_a_verdict_gives_the_reason_why_nothing_was_tested(change: float, is_known: bool, verdict: str) -> None:
    assert verdict_of("exact_match", change, is_found=is_known, is_known=is_known) == verdict


def test_values_that_are_not_finite_are_called_so() -> None:
    for metric in ("nll/answer", "exact_match"):
        assert value_of(metric, math.nan) == value_of(metric, math.inf) == "not finite"
        assert change_of(metric, math.nan) == ""
        assert value_with_error(metric, Estimate(math.nan, math.nan, 1, 1, 3)) == "not finite"


def test_the_interval_of_a_share_stays_between_0_and_1() -> None:
    everything = Estimate(1.0, 0.0, 9, 1, 10)
    bounds = interval_bounds("accuracy/cloze/sum", everything)
    assert bounds is not None
    assert (round(bounds[0], 3), bounds[1]) == (0.722, pytest.approx(1.0))
    assert value_with_error("accuracy/cloze/sum", everything) == "100.0% (72.2 to 100.0)"
    # a score out of 100 is no share, whatever its name
    assert interval_bounds("exact_match", Estimate(50.0, 1.0, 9, 1, 10)) == pytest.approx((47.738, 52.262), abs=1e-3)
    assert interval_bounds("nll/answer", Estimate(1.0, 0.0, 9, 1, 10)) is None


@pytest.mark.parametrize(
    ("cells", "notes"),
    [
        (["1.5000 ±0.2000", "2.0000"], ["± is the 95 % confidence interval over the items."]),
        (["90.0% (72.2 to 100.0)", ""], ["The range in brackets is the 95 % confidence interval over the items."]),
        (
            ["1.5000 ±0.2000", "90.0% (72.2 to 100.0)"],
            ["± and the range in brackets are 95 % confidence intervals over the items."],
        ),
        (["1.5000", "90.0%"], []),
    ],
)
def test_the_note_on_intervals_names_those_of_the_table(cells: list[str], notes: list[str]) -> None:
    assert interval_notes("the items", [["± (1 to 2)", *cells]]) == notes
    assert interval_notes("the items", [["a row", each] for each in cells]) == notes


def test_what_a_metric_covers_is_named_as_users_type_it() -> None:
    assert scope_of("nll/firefly_multi_turn") == "tokens of the `firefly_multi_turn` mask"
    assert label_of("accuracy/cloze") == "accuracy (cloze)"
    assert label_of("chrf") == "chrF"
