"""Names of figures: whether more of one is better, and how it is printed."""

from __future__ import annotations

import math

from scipy.stats import binomtest

from lit_sft.reporting.statistics import Estimate

_LESS_IS_BETTER = ("nll", "bits_per_byte", "bits_per_character")
SHARES = ("accuracy", "acc", "acc_norm", "acc_bytes", "exact_match")
"""Figures that are shares of right answers."""
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


def direction(figure: str) -> int:
    """1 where more is better, -1 where less is, 0 where neither is known to be."""
    name = figure.partition("/")[0]
    return (name in _MORE_IS_BETTER) - (name in _LESS_IS_BETTER)


def title_of(figure: str) -> str:
    """A figure's name in words."""
    name, _, rest = figure.partition("/")
    words = (_TITLES.get(name, name.replace("_", " ")), rest.replace("/", ", ").replace("_", " "))
    return ", ".join(filter(None, words))


def value_of(figure: str, value: float) -> str:
    """A figure's value; of shares, in per cent."""
    return f"{value:.1%}" if _is_share(figure) else f"{value:.4f}"


def change_of(figure: str, value: float) -> str:
    """A difference with its sign; of shares, in percentage points."""
    return f"{100 * value:+.1f}" if _is_share(figure) else f"{value:+.4f}"


def value_with_error(figure: str, estimate: Estimate) -> str:
    """A mean with its 95 % interval: of shares Wilson's, which stays between none and all."""
    if _is_share(figure) and 0 <= estimate.value <= 1:  # a task of lm-eval may call anything `exact_match`
        right, total = round(estimate.value * estimate.num_rows), estimate.num_rows
        interval = binomtest(right, total).proportion_ci(method="wilson")
        return f"{estimate.value:.1%} ({100 * interval.low:.1f} to {100 * interval.high:.1f})"
    if not estimate.standard_error > 0:
        return value_of(figure, estimate.value)
    return f"{value_of(figure, estimate.value)} ±{estimate.half_width:.4f}"


def p_of(value: float, *, is_sentence: bool = False) -> str:
    """A p-value; nothing where it cannot be told."""
    if math.isnan(value):
        return ""
    return "< 0.001" if value < 0.001 else f"{'= ' if is_sentence else ''}{value:.3f}"


def _is_share(figure: str) -> bool:
    return figure.partition("/")[0] in (*SHARES, "ended")
