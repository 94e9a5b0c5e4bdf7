"""The pictures of a study's report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lit_sft.ablation.comparison import ArmDifference, Comparison, shared_name
from lit_sft.ablation.run_files import ANSWER_METRICS
from lit_sft.reporting.formatting import better_of, direction, is_share, scope_of, title_of, unit_of
from lit_sft.reporting.pictures import COLOURS, plain_text, save_picture

_WIDE = 4
"""Ratio of highest to lowest value above which curves are drawn on a log scale."""


def draw_differences(differences: list[ArmDifference], primary: str, path: Path) -> Path | None:
    """Each arm's difference from the baseline with its interval, in the primary metric and in those of answers."""
    arms = list(dict.fromkeys(d.arm for d in differences))[::-1]
    finite = [d for d in differences if d.is_known]
    names = dict.fromkeys((primary, *(name for name in ANSWER_METRICS if direction(name) == 1)))
    panels = {shared_name(name): rows for name in names if (rows := [d for d in finite if d.name == name])}
    if not panels:
        return None
    figure = Figure(figsize=(7, len(panels) * (0.9 + 0.35 * len(arms))))
    axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    for axis, (metric, rows) in zip(axes, panels.items(), strict=True):
        for d in rows:
            scale = 100 if is_share(metric) else 1
            value, width = scale * d.estimate.value, scale * d.estimate.half_width
            axis.errorbar(value, arms.index(d.arm), xerr=width, fmt="o", color=COLOURS[d.colour], capsize=3)
        axis.axvline(0, color="black", linewidth=0.8)
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.set_title(_without_marks(scope_of(metric) or title_of(metric)), fontsize=10)
        axis.set_xlabel(_axis_label(metric), fontsize=9)
        axis.set_yticks(range(len(arms)), map(plain_text, arms))
        axis.set_ylim(-0.6, len(arms) - 0.4)
    return save_picture(figure, path)


def _axis_label(metric: str) -> str:
    unit, better = "percentage points" if is_share(metric) else unit_of(metric), better_of(metric)
    return f"difference{f' in {unit}' if unit else ''}{f' ({better})' if better else ''}"


def _without_marks(words: str) -> str:
    """Prepare words for a picture, where backticks would be drawn."""
    return plain_text(words.replace("`", ""))


def draw_curves(comparison: Comparison, mask: str, path: Path) -> Path | None:
    """Validation loss by step: the mean over seeds, and a band from the lowest to the highest."""
    curves = {
        arm: [dict(comparison.results[arm, seed].curve) for seed in comparison.seeds(arm)] for arm in comparison.arms
    }
    first = next((list(found[0].items()) for found in curves.values() if found), [])
    if len(first) < 2 or not first[0][1]:
        return None
    name = mask if mask in first[0][1] else "output_only" if "output_only" in first[0][1] else next(iter(first[0][1]))
    figure = Figure(figsize=(7, 4))
    axis = figure.subplots()
    for arm in comparison.arms:
        steps = sorted(set.intersection(*map(set, curves[arm]))) if curves[arm] else []
        if not steps:
            continue
        values = np.array([[curve[step].get(name, np.nan) for step in steps] for curve in curves[arm]])
        (line,) = axis.plot(steps, values.mean(axis=0), marker="o", markersize=3, label=plain_text(arm))
        axis.fill_between(steps, values.min(axis=0), values.max(axis=0), alpha=0.2, color=line.get_color())
    low, high = axis.get_ylim()
    if low > 0 and high / low > _WIDE:
        axis.set_yscale("log")  # otherwise all but the first steps would look flat
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("optimiser step")
    axis.set_ylabel(f"validation loss, nats per token\n{_without_marks(scope_of(shared_name(name)))}")
    axis.legend()
    return save_picture(figure, path)
