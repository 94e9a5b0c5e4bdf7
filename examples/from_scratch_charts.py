"""The pictures of `make from-scratch`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from lit_sft.reporting.pictures import save_picture


def draw_examples(pairs: Sequence[Any], path: Path) -> Path:
    """Exact answers by number of training examples, from the pretrained model and from random weights."""
    figure = Figure(figsize=(7, 3.8))
    axis = figure.subplots()
    labels = {"pretrained": "from the pretrained model", "scratch": "from random weights"}
    for shift, (start, label) in zip((1.015, 1 / 1.015), labels.items(), strict=True):
        means = [pair.comparison.mean("exact_match", getattr(pair, start))[0] for pair in pairs]
        places = [pair.examples * shift for pair in pairs]
        widths = [each.half_width if each.standard_error > 0 else 0.0 for each in means]
        colour = "tab:blue" if start == "pretrained" else "tab:gray"
        values = [each.value for each in means]
        axis.errorbar(places, values, yerr=widths, marker="o", capsize=3, label=label, color=colour)
    axis.set_xscale("log")
    axis.set_xticks([pair.examples for pair in pairs], [f"{pair.examples:,}" for pair in pairs])
    axis.minorticks_off()
    axis.set_ylim(0, 1)
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.set_xlabel("training examples")
    axis.set_ylabel("exact answers")
    axis.legend()
    return save_picture(figure, path)


def draw_pretraining(curve: list[tuple[int, float]], path: Path) -> Path:
    """Bits per byte by optimiser step."""
    figure = Figure(figsize=(7, 3.4))
    axis = figure.subplots()
    axis.plot([step for step, _ in curve], [bits for _, bits in curve], marker="o", color="tab:blue")
    axis.set_ylim(bottom=0)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("optimiser step")
    axis.set_ylabel("bits per byte")
    return save_picture(figure, path)
