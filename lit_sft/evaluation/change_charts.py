"""The picture of an evaluation: the change on every set, sorted."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from lit_sft.evaluation.item_results import Change
from lit_sft.reporting.pictures import plain_text, save_picture

_MOST_ROWS = 80
_MOST_COLUMNS = 2


def draw_changes(changes: list[Change], path: Path) -> Path | None:
    """The change in accuracy on each set or, where it has parts, each of these, a panel for each model and figure.

    Of many, the largest are shown.
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
            colour = {1: "tab:green", -1: "tab:red", 0: "tab:gray"}[change.sense if change.is_found else 0]
            width = 100 * change.estimate.half_width
            axis.errorbar(100 * change.estimate.value, place, xerr=width, fmt="o", color=colour, capsize=3)
        axis.set_yticks(range(len(rows)), [plain_text(_label(c)) for c in rows], fontsize=8)
        axis.set_ylim(-0.6, len(rows) - 0.4)
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_title(plain_text(f"{model}: {name.replace('/', ', ').replace('_', ' ')}"), fontsize=10)
        cut = f"; the {len(largest)} largest of {num_rows:,}" if len(largest) < num_rows else ""
        axis.set_xlabel(f"change in percentage points; grey: within noise{cut}", fontsize=8)
    return save_picture(figure, path)


def _label(change: Change) -> str:
    return f"{change.group or change.set} ({change.estimate.num_rows})"
