"""The pictures of a report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lit_sft.ablation.comparison import MORE_IS_BETTER, Comparison, Difference
from lit_sft.reporting.pictures import plain_text, save_picture

_WIDE = 4
"""Curves that span more than so many times their least value are drawn on a log scale."""


def draw_differences(differences: list[Difference], primary: str, path: Path) -> Path | None:
    """Each arm's difference to the baseline with its interval: the figure that is asked about, and those of answers."""
    arms = list(dict.fromkeys(d.arm for d in differences))[::-1]
    finite = [d for d in differences if d.is_told]
    panels = {name: [d for d in finite if d.metric == name] for name in dict.fromkeys((primary, *MORE_IS_BETTER))}
    panels = {name: rows for name, rows in panels.items() if rows}
    if not panels:
        return None
    figure = Figure(figsize=(3 + 3 * len(panels), 1.4 + 0.4 * len(arms)))
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axis, (name, rows) in zip(axes, panels.items(), strict=True):
        for d in rows:
            colour = ("tab:green" if d.is_better else "tab:red") if d.is_found else "tab:gray"
            place, width = arms.index(d.arm), d.estimate.half_width
            axis.errorbar(d.estimate.value, place, xerr=width, fmt="o", color=colour, capsize=3)
        axis.axvline(0, color="black", linewidth=0.8)
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.set_title(plain_text(name.replace("_", " ")), fontsize=10)
        axis.set_xlabel("more is better" if name in MORE_IS_BETTER else "nats per token, less is better", fontsize=8)
    axes[0].set_yticks(range(len(arms)), map(plain_text, arms))
    axes[0].set_ylim(-0.6, len(arms) - 0.4)
    return save_picture(figure, path)


def draw_curves(comparison: Comparison, mask: str, path: Path) -> Path | None:
    """Validation loss by step: the mean over seeds, and a band from the least to the greatest."""
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
        axis.set_yscale("log")  # or all that is learnt after the first steps would be a flat line
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("optimiser step")
    axis.set_ylabel(plain_text(f"validation nats per token, {name.replace('_', ' ')}"))
    axis.legend()
    return save_picture(figure, path)
