"""How metrics are printed: their names and units, values, differences, p-values and verdicts."""

from __future__ import annotations

import math
import re

from scipy.stats import binomtest

from lit_sft.reporting.page import Cell
from lit_sft.reporting.statistics import Estimate

SHARES = ("accuracy", "acc", "acc_norm", "acc_bytes", "exact_match", "preference_accuracy")
"""Metrics that are shares of right answers, or of right preferences."""
_LESS_IS_BETTER = ("nll", "bits_per_byte", "bits_per_character")
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

_TITLES = {
    "nll": "nats per token",
    "bits_per_byte": "bits per byte",
    "bits_per_character": "bits per character",
    "chrf": "chrF",
    "rouge1_mixed": "ROUGE-1",
    "rouge2_mixed": "ROUGE-2",
    "rougeL_mixed": "ROUGE-L",
    "rougeL_word": "ROUGE-L by word",
    "rougeL_character": "ROUGE-L by character",
    "ended": "answers that end by themselves",
    "repetition": "repeated 4-grams",
    "distinct_2": "distinct 2-grams",
    "num_tokens": "tokens per answer",
}
_SEGMENTS = {
    "system": "system tokens",
    "user": "user tokens",
    "template": "template tokens",
    "answer": "answer tokens",
    "first_answer_token": "first answer tokens",
    "end_token": "end tokens",
    "text": "text tokens",
    "context_answer": "tokens of answers that are not trained",
    "thinking": "thinking tokens",
    "tool_call": "tool call tokens",
    "tool_result": "tool result tokens",
}
_MASKS = ("whole_sequence", "output_only", "firefly_multi_turn")
_UNITS = {name: _TITLES[name] for name in _LESS_IS_BETTER} | {"num_tokens": "tokens"}

GLOSSARY = {
    "nll": "Nats per token: the mean negative log-likelihood of a token given those before it; lower is better. "
    "Compare it between models with the same tokenizer only.",
    "bits_per_byte": "Bits per byte: negative log-likelihood divided by the length of the text in bytes, so that "
    "models with different tokenizers can be compared; lower is better.",
    "rougeL_mixed": "ROUGE-L: overlap of an answer with its reference, from 0 to 1, by word, and by character in "
    "Chinese.",
    "preference_accuracy": "Preference accuracy: how often the chosen answer is likelier than the rejected one.",
    "chrf": "chrF: overlap of an answer with its reference in runs of characters, from 0 to 1.",
}
"""What metrics mean, for readers who meet them for the first time."""


def direction(metric: str) -> int:
    """1 if higher is better, -1 if lower is better, 0 if unknown."""
    name = metric.partition("/")[0]
    return (name in _MORE_IS_BETTER) - (name in _LESS_IS_BETTER)


def better_of(metric: str) -> str:
    """Which values of a metric are better; empty if unknown."""
    return {1: "higher is better", -1: "lower is better", 0: ""}[direction(metric)]


def title_of(metric: str) -> str:
    """A metric's name in words, such as "nats per answer token" or "bits per byte, answer tokens"."""
    name, _, rest = metric.partition("/")
    title, scope = _TITLES.get(name, _words(name)), scope_of(metric) if rest else ""
    kind, tokens, file = scope.partition("tokens")
    if title.endswith(" per token") and tokens:
        return f"{title.removesuffix('token')}{kind}token{file}"
    return ", ".join(filter(None, (title, scope)))


def scope_of(metric: str) -> str:
    """What a metric covers: the tokens of a loss, the rule of an accuracy; empty if it is everything."""
    part, _, file = metric.partition("/")[2].partition(" in ")
    words = f"tokens of the `{part}` mask" if part in _MASKS else _SEGMENTS.get(part, _words(part))
    return f"{words} in {file}" if file else words


def unit_of(metric: str) -> str:
    """The unit of a metric's values; empty if it has none, or is a share and printed in per cent."""
    return _UNITS.get(metric.partition("/")[0], "")


def value_of(metric: str, value: float, digits: int = 4) -> str:
    """A metric's value without its unit; a share in per cent."""
    if not math.isfinite(value):
        return "not finite"
    return f"{value:.1%}" if is_share(metric) else f"{value:.{digits}f}"


def change_of(metric: str, value: float, digits: int = 4) -> str:
    """A difference with its sign; for shares, in percentage points; empty if it is not finite."""
    if not math.isfinite(value):
        return ""
    return f"{100 * value:+.1f}" if is_share(metric) else f"{value:+.{digits}f}"


def interval_of(metric: str, estimate: Estimate, digits: int = 4) -> str:
    """The 95 % interval of a difference; empty if it is unknown."""
    if not estimate.standard_error > 0:
        return ""
    return f"{change_of(metric, estimate.low, digits)} to {change_of(metric, estimate.high, digits)}"


def interval_bounds(metric: str, estimate: Estimate) -> tuple[float, float] | None:
    """The 95 % interval of a mean; None if it is unknown.

    For shares from a single seed, Wilson's interval, which stays between 0 and 1.
    """
    if _is_proportion(metric, estimate):
        right, total = round(estimate.value * estimate.num_rows), estimate.num_rows
        interval = binomtest(right, total).proportion_ci(method="wilson")
        return interval.low, interval.high
    if not estimate.standard_error > 0:  # an interval of zero width would be misleading
        return None
    return estimate.low, estimate.high


def interval_notes(over: str, rows: list[list[Cell]]) -> list[str]:
    """Explain the intervals of `value_with_error` below a table; empty if it has none.

    Args:
        over: What the means are taken over.
        rows: The table's.
    """
    cells = [cell if isinstance(cell, str) else cell.text for row in rows for cell in row[1:]]
    has_width, has_range = (any(re.search(mark, cell) for cell in cells) for mark in (r"±\d", r"\([\d.]+ to [\d.]+\)"))
    if has_width and has_range:
        return [f"± and the range in brackets are 95 % confidence intervals over {over}."]
    if has_width or has_range:
        return [f"{'±' if has_width else 'The range in brackets'} is the 95 % confidence interval over {over}."]
    return []


def _is_proportion(metric: str, estimate: Estimate) -> bool:
    """Whether a mean is a share of right items; tasks of lm-eval may score out of 100 under the same name."""
    return is_share(metric) and 0 <= estimate.value <= 1 and estimate.num_seeds == 1


def value_with_error(metric: str, estimate: Estimate, digits: int = 4) -> str:
    """A mean with its 95 % interval: see `interval_bounds`."""
    bounds = interval_bounds(metric, estimate)
    if bounds is None:
        return value_of(metric, estimate.value, digits)
    if _is_proportion(metric, estimate):
        return f"{estimate.value:.1%} ({100 * bounds[0]:.1f} to {100 * bounds[1]:.1f})"
    half = 100 * estimate.half_width if is_share(metric) else estimate.half_width
    return f"{value_of(metric, estimate.value, digits)} ±{half:.{1 if is_share(metric) else digits}f}"


def p_of(value: float, *, is_sentence: bool = False) -> str:
    """A p-value; empty if it is unknown."""
    if math.isnan(value):
        return ""
    return "< 0.001" if value < 0.001 else f"{'= ' if is_sentence else ''}{value:.3f}"


def label_of(metric: str) -> str:
    """A metric's name with what it covers in brackets, such as "accuracy (cloze, sum)"."""
    title, scope = title_of(metric.partition("/")[0]), scope_of(metric)
    return f"{title} ({scope})" if scope else title


def difference_of(metric: str, before: float, after: float) -> str:
    """A difference in words, with its unit and both values.

    Such as "its loss on answer tokens is 0.064 nats per token higher, 1.624 against 1.560", or "its exact match is 3.0
    percentage points higher, 12.0% against 9.0%".
    """
    change, digits = after - before, digits_of(before, after)
    value = value_of(metric, after, digits)
    is_loss, scope = direction(metric) == -1, scope_of(metric)
    what = f"its {'loss' + (f' on {scope}' if scope else '') if is_loss else label_of(metric)} is"
    amount = f"{100 * abs(change):.1f}" if is_share(metric) else f"{abs(change):.{digits}f}"
    if not float(amount):
        return " ".join(filter(None, (what, "the same on average,", value, unit_of(metric))))
    unit = "percentage points" if is_share(metric) else unit_of(metric)
    more = "higher" if change > 0 else "lower"
    return f"{' '.join(filter(None, (what, amount, unit, more)))}, {value} against {value_of(metric, before, digits)}"


def digits_of(*values: float) -> int:
    """Decimals that tell values apart: three, or four if they or their differences are small."""
    sizes = [abs(value) for value in (*values, max(values) - min(values)) if value]
    return 4 if sizes and min(sizes) < 0.01 else 3


def verdict_of(metric: str, change: float, *, is_found: bool, is_known: bool) -> str:
    """What a comparison found.

    Args:
        metric: Its name.
        change: The new value minus the old one.
        is_found: Whether the difference is beyond noise.
        is_known: Whether there is a p-value to judge it by.
    """
    if not is_known:
        return "not finite" if not math.isfinite(change) else "cannot be tested" if change else "identical"
    if not is_found:
        return "within noise"
    sense = direction(metric) * (1 if change > 0 else -1)
    return {1: "better", -1: "worse", 0: "higher" if change > 0 else "lower"}[sense]


def is_share(metric: str) -> bool:
    """Whether a metric is a share of the items, printed in per cent."""
    return metric.partition("/")[0] in (*SHARES, "ended")


def _words(name: str) -> str:
    return name.replace("/", ", ").replace("_", " ")
