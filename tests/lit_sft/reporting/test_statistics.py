"""On simulated studies with a known truth, a real effect is found and a null effect is not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lit_sft.reporting.statistics import Floats, estimate, holm

# where the differences between two arms come from: standard deviations of seeds, of records and of both together
SOURCES = {
    "seeds": (0.02, 0.0, 0.1),
    "records": (0.0, 0.3, 0.01),
    "noise": (0.0, 0.0, 0.3),
    "all": (0.03, 0.3, 0.3),
    "all, mostly seeds": (0.1, 0.3, 0.3),
}


def study(draw: np.random.Generator, num_seeds: int, source: str, shift: float) -> tuple[Floats, Floats]:
    """Paired differences of nats, (S, R), and tokens, (R,): few long records, many short ones."""
    seeds, records, noise = SOURCES[source]
    tokens = np.maximum(1, np.round(np.exp(draw.normal(3, 0.8, 120))))
    per_token = (
        shift
        + draw.normal(0, seeds, (num_seeds, 1))
        + draw.normal(0, records, 120) / np.sqrt(tokens)
        + draw.normal(0, noise, (num_seeds, 120)) / np.sqrt(tokens)
    )
    return per_token * tokens, tokens


@pytest.mark.parametrize("num_seeds", [3, 5, 10])
@pytest.mark.parametrize("source", SOURCES)
def test_of_400_studies_of_equal_arms_few_find_a_difference(num_seeds: int, source: str) -> None:
    draw = np.random.default_rng(num_seeds)
    # if neither seeds nor records vary, the test is conservative, near 2.5 %; more studies are needed to distinguish
    # that from 2 %
    num_studies = 2000 if source == "noise" else 400
    found = [estimate(*study(draw, num_seeds, source, 0.0)).p_value < 0.05 for _ in range(num_studies)]
    assert 0.02 <= np.mean(found) <= 0.08


@pytest.mark.parametrize("num_seeds", [3, 5, 10])
@pytest.mark.parametrize("source", SOURCES)
def test_95_percent_of_400_intervals_contain_the_true_shift(num_seeds: int, source: str) -> None:
    draw = np.random.default_rng(100 + num_seeds)
    estimates = [estimate(*study(draw, num_seeds, source, 0.05)) for _ in range(400)]
    assert 0.92 <= np.mean([e.low <= 0.05 <= e.high for e in estimates]) <= 0.98


def test_two_seeds_are_too_few_as_reports_say() -> None:
    found = {}
    for source in SOURCES:
        draw = np.random.default_rng(2)
        found[source] = np.mean([estimate(*study(draw, 2, source, 0.0)).p_value < 0.05 for _ in range(1000)])
    assert 0.10 <= max(found.values()) <= 0.14
    draw = np.random.default_rng(2)
    widths = [np.median([estimate(*study(draw, n, "seeds", 0.0)).half_width for _ in range(400)]) for n in (2, 3)]
    assert widths[0] > 2 * widths[1]


def test_bootstrap_over_three_seeds_fails_this_check() -> None:
    draw, found = np.random.default_rng(0), []
    for _ in range(400):
        sums, tokens = study(draw, 3, "seeds", 0.0)
        means = sums.sum(axis=1) / tokens.sum()
        resampled = means[draw.integers(3, size=(1000, 3))].mean(axis=1)
        found.append(not np.quantile(resampled, 0.025) <= 0 <= np.quantile(resampled, 0.975))
    assert np.mean(found) > 0.12


def test_shift_much_larger_than_its_error_is_always_found() -> None:
    draw = np.random.default_rng(1)
    assert all(estimate(*study(draw, 5, "all", 0.3)).p_value < 0.05 for _ in range(100))


def test_where_only_seeds_vary_it_is_the_t_test_over_them() -> None:
    means = np.array([0.3, 0.1, 0.5, 0.2])
    ours = estimate(np.repeat(means[:, None], 7, axis=1), np.ones(7))
    theirs = stats.ttest_1samp(means, 0.0)
    assert ours.p_value == pytest.approx(theirs.pvalue)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval()))


def test_with_one_seed_it_is_the_t_test_over_records() -> None:
    values = np.random.default_rng(2).normal(0.2, 1.0, 30)
    ours, theirs = estimate(values[None], np.ones(30)), stats.ttest_1samp(values, 0.0)
    assert ours.p_value == pytest.approx(theirs.pvalue)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval()))


def test_the_value_is_the_ratio_of_sums() -> None:
    assert estimate(np.array([[1.0, 20.0], [3.0, 10.0]]), np.array([1.0, 10.0])).value == pytest.approx(34 / 22)


def test_arms_that_are_equal_to_the_last_bit_do_not_differ() -> None:
    same = estimate(np.zeros((3, 5)), np.ones(5))
    assert (same.value, same.standard_error) == (0.0, 0.0)
    assert np.isnan(same.p_value)


@pytest.mark.parametrize(("sums", "weights"), [(np.zeros(3), np.ones(3)), (np.zeros((2, 3)), np.ones(2))])
def test_wrong_shapes_are_refused(sums: Floats, weights: Floats) -> None:
    with pytest.raises(ValueError, match="expected sums"):
        estimate(sums, weights)


def test_zero_total_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="all rows have zero weight"):
        estimate(np.zeros((2, 3)), np.zeros(3))


def test_holm_adjusts_as_in_the_textbook() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
    assert holm([0.01, float("nan"), 0.04])[::2] == pytest.approx([0.02, 0.04])


def test_no_p_value_without_variance() -> None:
    assert np.isnan(estimate(np.ones((1, 4)), np.ones(4)).p_value)
