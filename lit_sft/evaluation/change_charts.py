"""The pictures of an evaluation: the metrics that matter, and the change in accuracy on every set, sorted."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from lit_sft.evaluation.item_results import Change
from lit_sft.reporting.formatting import better_of, interval_bounds, is_share, title_of, unit_of
from lit_sft.reporting.pictures import COLOURS, plain_text, save_picture
from lit_sft.reporting.statistics import Estimate

_MOST_ROWS = 80
_MOST_COLUMNS = 2


Means = dict[str, Estimate | None]
"""A metric's means by model."""


def draw_headline(metrics: list[tuple[str, str, Means]], path: Path) -> Path | None:
    """Every model's mean with its interval, a panel for each metric.

    Args:
        metrics: Title, metric and means.
        path: The file.
    """
    if not metrics:
        return None
    num_models = max(len(means) for _, _, means in metrics)
    figure = Figure(figsize=(7, len(metrics) * (0.85 + 0.25 * num_models)))
    for axis, (title, metric, means) in zip(
        figure.subplots(len(metrics), 1, squeeze=False)[:, 0], metrics, strict=True
    ):
        names, scale = list(means)[::-1], 100 if is_share(metric) else 1
        for place, name in enumerate(names):
            if mean := means[name]:
                low, high = interval_bounds(metric, mean) or (mean.value, mean.value)
                width = [[scale * max(0.0, mean.value - low)], [scale * max(0.0, high - mean.value)]]
                axis.errorbar(scale * mean.value, place, xerr=width, fmt="o", color="tab:blue", capsize=3)
        axis.set_yticks(range(len(names)), map(plain_text, names))
        axis.set_ylim(-0.6, len(names) - 0.4)
        axis.set_title(plain_text(title), fontsize=10)
        unit = "per cent" if is_share(metric) else unit_of(metric)
        axis.set_xlabel(", ".join(filter(None, (unit, better_of(metric)))), fontsize=9)
    return save_picture(figure, path)


def draw_changes(changes: list[Change], path: Path) -> Path | None:
    """The change in accuracy on each set, or on each part of it, with a panel for each model and metric.

    If there are many, the largest changes are shown.
    """
    divided = {(change.set, change.metric) for change in changes if change.group}
    shown = [c for c in changes if c.group or (c.set, c.metric) not in divided]
    panels: dict[tuple[str, str], list[Change]] = {}
    for change in shown:
        panels.setdefault((change.model, change.metric), []).append(change)
    if not panels:
        return None
    most = min(_MOST_ROWS, max(map(len, panels.values())))
    columns = min(_MOST_COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(6 * columns, lines * (1.4 + 0.28 * most)))
    axes = figure.subplots(lines, columns, squeeze=False).flatten()
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    for axis, ((model, name), rows) in zip(axes, panels.items(), strict=False):
        num_rows = len(rows)
        largest = sorted(rows, key=lambda c: -abs(c.estimate.value))[:_MOST_ROWS]
        rows = sorted(largest, key=lambda c: c.estimate.value)
        for place, change in enumerate(rows):
            value, width = 100 * change.estimate.value, 100 * change.estimate.half_width
            axis.errorbar(value, place, xerr=width, fmt="o", color=COLOURS[change.colour], capsize=3)
        axis.set_yticks(range(len(rows)), [plain_text(_label(c)) for c in rows], fontsize=8)
        axis.set_ylim(-0.6, len(rows) - 0.4)
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_title(plain_text(f"{model}: {title_of(name)}"), fontsize=10)
        cut = f"; the {len(largest)} largest of {num_rows:,}" if len(largest) < num_rows else ""
        axis.set_xlabel(f"change in percentage points; grey is within noise{cut}", fontsize=8)
    return save_picture(figure, path)


def _label(change: Change) -> str:
    return f"{change.group or change.set} ({change.estimate.num_rows})"
