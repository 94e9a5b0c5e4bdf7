"""The pictures of a synthesis: where its conversations went, how long they are, and what they cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lit_sft.reporting.pictures import plain_text, save_picture

_BINS = 40
_SHARE_SHOWN = 0.99
"""Lengths above this share of all are left out of the picture."""


def draw_yield(accepted: int, rules: Sequence[Mapping[str, Any]], path: Path) -> Path | None:
    """How many conversations were accepted, and how many each rule refused.

    Args:
        accepted: Conversations accepted.
        rules: `name` and `refused` of each rule, in order.
        path: The file.
    """
    counts = {"accepted": accepted, **{str(rule["name"]): int(rule["refused"]) for rule in rules}}
    if not any(counts.values()):
        return None
    figure = Figure(figsize=(7, 0.8 + 0.3 * len(counts)))
    axis = figure.subplots()
    names = list(counts)[::-1]
    colours = ["tab:green" if name == "accepted" else "tab:red" for name in names]
    bars = axis.barh(range(len(names)), [counts[name] for name in names], color=colours)
    axis.bar_label(bars, [f"{counts[name]:,}" for name in names], padding=3, fontsize=8)
    axis.set_yticks(range(len(names)), [plain_text(name) for name in names])
    axis.set_xlabel("conversations; each is refused by the first rule that objects", fontsize=9)
    axis.margins(x=0.12)
    _count_in_whole_numbers(axis.xaxis)
    return save_picture(figure, path)


def draw_lengths(lengths: Mapping[str, Mapping[str, Counter[int]]], path: Path) -> Path | None:
    """How long questions and answers are, a panel for each language and kind.

    Args:
        lengths: How often each length occurs, by kind (questions, answers) and language.
        path: The file.
    """
    panels = [(what, language, counts) for what, each in lengths.items() for language, counts in sorted(each.items())]
    if not panels:
        return None
    columns = len(lengths)
    figure = Figure(figsize=(4.2 * columns, 2.4 * -(-len(panels) // columns)))
    axes = figure.subplots(-(-len(panels) // columns), columns, squeeze=False).T.flatten()
    for axis, (what, language, counts) in zip(axes, panels, strict=False):
        high = _high(counts)
        shown = [length for length in counts if length <= high]
        width = -(-(high - min(shown) + 1) // _BINS)
        edges = [edge - 0.5 for edge in range(min(shown), high + width + 1, width)]
        axis.hist(shown, bins=edges, weights=[counts[length] for length in shown], color="tab:blue")
        unit = "characters" if language == "zh" else "words"
        axis.set_title(f"{what}, {language}", fontsize=10)
        _count_in_whole_numbers(axis.xaxis, axis.yaxis)
        axis.set_xlabel(f"{unit}, up to the 99th percentile", fontsize=8)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    return save_picture(figure, path)


def draw_costs(points: Sequence[tuple[float, float]], unit: str, path: Path) -> Path | None:
    """What accepted conversations cost as the run goes on.

    Args:
        points: Accepted conversations so far, and what they have cost.
        unit: What the cost is in: a currency, or tokens.
        path: The file.
    """
    if len(points) < 2 or not all(points[-1]):  # nothing accepted, or nothing to pay: there is no rate to show
        return None
    figure = Figure(figsize=(8.4, 2.8))
    total, each = figure.subplots(1, 2)
    total.plot(*zip(*points, strict=True), color="tab:blue")
    total.set_xlabel("accepted conversations", fontsize=9)
    total.set_title(plain_text(f"cost so far, {unit}"), fontsize=10)
    rates = [(num, cost / num) for num, cost in points if num]
    each.plot(*zip(*rates, strict=True), color="tab:blue") if rates else each.set_visible(False)
    each.set_xlabel("accepted conversations", fontsize=9)
    each.set_title(plain_text(f"cost of an accepted conversation, {unit}"), fontsize=10)
    for axis in (total, each):
        axis.set_ylim(bottom=0)
        _count_in_whole_numbers(axis.xaxis)
    return save_picture(figure, path)


def _count_in_whole_numbers(*axes: Axis) -> None:
    for axis in axes:
        axis.set_major_locator(
            MaxNLocator(steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
        )  # with two, a single number gets fractions


def _high(counts: Counter[int]) -> int:
    """The length up to which a picture shows the counts."""
    left = _SHARE_SHOWN * counts.total()
    for length in sorted(counts):
        left -= counts[length]
        if left <= 0:
            break
    return length
