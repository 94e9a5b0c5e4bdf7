"""Names of metrics: whether more of one is better, and how it is printed."""

from __future__ import annotations

import math

from scipy.stats import binomtest

from lit_sft.reporting.statistics import Estimate

_LESS_IS_BETTER = ("nll", "bits_per_byte", "bits_per_character")
SHARES = ("accuracy", "acc", "acc_norm", "acc_bytes", "exact_match")
"""Metrics that are shares of right answers."""
_MORE_IS_BETTER = (
    *SHARES,
    "chrf",
    "f1",
    "rouge1_mixed",
    "rouge2_mixed",
    "rougeL_mixed",
    "rougeL_character",
    "rougeL_word",
)

_TITLES = {"nll": "nats per token", "bits_per_byte": "bits per byte", "bits_per_character": "bits per character"}


def direction(metric: str) -> int:
    """1 where more is better, -1 where less is, 0 where neither is known to be."""
    name = metric.partition("/")[0]
    return (name in _MORE_IS_BETTER) - (name in _LESS_IS_BETTER)


def title_of(metric: str) -> str:
    """A metric's name in words."""
    name, _, rest = metric.partition("/")
    words = (_TITLES.get(name, name.replace("_", " ")), rest.replace("/", ", ").replace("_", " "))
    return ", ".join(filter(None, words))


def value_of(metric: str, value: float) -> str:
    """A metric's value; of shares, in per cent."""
    return f"{value:.1%}" if _is_share(metric) else f"{value:.4f}"


def change_of(metric: str, value: float) -> str:
    """A difference with its sign; of shares, in percentage points."""
    return f"{100 * value:+.1f}" if _is_share(metric) else f"{value:+.4f}"


def value_with_error(metric: str, estimate: Estimate) -> str:
    """A mean with its 95 % interval: of shares Wilson's, which stays between none and all."""
    if _is_share(metric) and 0 <= estimate.value <= 1:  # a task of lm-eval may call anything `exact_match`
        right, total = round(estimate.value * estimate.num_rows), estimate.num_rows
        interval = binomtest(right, total).proportion_ci(method="wilson")
        return f"{estimate.value:.1%} ({100 * interval.low:.1f} to {100 * interval.high:.1f})"
    if not estimate.standard_error > 0:
        return value_of(metric, estimate.value)
    return f"{value_of(metric, estimate.value)} ±{estimate.half_width:.4f}"


def p_of(value: float, *, is_sentence: bool = False) -> str:
    """A p-value; nothing where it cannot be told."""
    if math.isnan(value):
        return ""
    return "< 0.001" if value < 0.001 else f"{'= ' if is_sentence else ''}{value:.3f}"


def _is_share(metric: str) -> bool:
    return metric.partition("/")[0] in (*SHARES, "ended")
