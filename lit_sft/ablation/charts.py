"""The pictures of a report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from lit_sft.ablation.collect import ANSWER_FIGURES, Comparison, Difference

_DPI = 120


def draw_differences(differences: list[Difference], path: Path) -> Path | None:
    """Each arm's differences to the baseline with their intervals, losses beside shares of answers."""
    panels = [
        ("nats per token (less is better)", [d for d in differences if d.figure not in ANSWER_FIGURES]),
        ("share of answers", [d for d in differences if d.figure in ANSWER_FIGURES and d.figure != "num_tokens"]),
    ]
    panels = [(label, rows) for label, rows in panels if rows]
    if not panels:
        return None
    tallest = max(len(rows) for _, rows in panels)
    figure = Figure(figsize=(6 * len(panels), 1.2 + 0.28 * tallest))
    axes = figure.subplots(1, len(panels), squeeze=False)
    for axis, (label, rows) in zip(axes[0], panels, strict=True):
        for place, d in enumerate(reversed(rows)):
            colour = ("tab:green" if d.is_better else "tab:red") if d.is_found else "tab:gray"
            error = [[d.estimate.half_width], [d.estimate.half_width]]
            axis.errorbar(d.estimate.value, place, xerr=error, fmt="o", color=colour, capsize=3)
        axis.set_yticks(range(len(rows)), [f"{d.figure} · {d.arm}" for d in reversed(rows)], fontsize=8)
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_xlabel(label)
    return _save(figure, path)


def draw_curves(comparison: Comparison, mask: str, path: Path) -> Path | None:
    """Validation loss by step: the mean over seeds, and a band from the least to the greatest."""
    first = comparison.results[comparison.arms[0], comparison.seeds[0]].curve
    if len(first) < 2:
        return None
    name = mask if mask in first[0][1] else "output_only" if "output_only" in first[0][1] else next(iter(first[0][1]))
    figure = Figure(figsize=(7, 4))
    axis = figure.subplots()
    for arm in comparison.arms:
        curves = [comparison.results[arm, seed].curve for seed in comparison.seeds]
        shared = min(map(len, curves))
        steps = [step for step, _ in curves[0][:shared]]
        values = np.array([[masks.get(name, np.nan) for _, masks in curve[:shared]] for curve in curves])
        (line,) = axis.plot(steps, values.mean(axis=0), marker="o", markersize=3, label=arm)
        axis.fill_between(steps, values.min(axis=0), values.max(axis=0), alpha=0.2, color=line.get_color())
    axis.set_xlabel("optimiser step")
    axis.set_ylabel(f"validation nats per token, {name.replace('_', ' ')}")
    axis.legend()
    return _save(figure, path)


def _save(figure: Figure, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, dpi=_DPI)
    return path
