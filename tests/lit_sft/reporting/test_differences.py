"""A difference between two models or arms, as tables show it."""

from __future__ import annotations

import math

import pytest

from lit_sft.reporting.differences import Difference
from lit_sft.reporting.page import Finding
from lit_sft.reporting.statistics import Estimate


def difference(metric: str, value: float, p: float, error: float = 0.1) -> Difference:
    return Difference(metric, 1.0, 1.0 + value, Estimate(value, error, 9, 1, 10), p, p)


@pytest.mark.parametrize(
    ("metric", "value", "p", "finding"),
    [
        ("nll/answer", -0.5, 0.001, Finding("better", 1)),
        ("nll/answer", 0.5, 0.001, Finding("worse", -1)),
        ("rougeL_mixed", 0.5, 0.001, Finding("better", 1)),
        ("num_tokens", 0.5, 0.001, Finding("higher", 0)),
        ("nll/answer", 0.5, 0.4, Finding("within noise", 0)),
        ("nll/answer", 0.5, math.nan, Finding("cannot be tested", 0)),
        ("nll/answer", math.nan, math.nan, Finding("not finite", 0)),
    ],
)
def test_a_verdict_is_coloured_only_beyond_noise(metric: str, value: float, p: float, finding: Finding) -> None:
    assert difference(metric, value, p).finding == finding


def test_equal_values_are_identical_and_not_tested() -> None:
    same = difference("nll/answer", 0.0, math.nan, error=0.0)
    assert same.is_zero
    assert not same.is_known
    assert same.verdict == "identical"


def test_the_columns_that_every_table_of_differences_has() -> None:
    assert difference("nll/answer", 0.5, 0.01).cells() == [
        "1.0000", "1.5000", "+0.5000", "+0.2738 to +0.7262", "0.010", "0.010",
    ]  # fmt: skip
    assert difference("nll/answer", math.nan, math.nan, math.nan).cells() == ["1.0000", "not finite", "", "", "", ""]
