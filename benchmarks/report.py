"""Writes the results of a comparison: a JSON file with everything, a table and a chart."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any


def write_report(result: dict[str, Any], folder: Path) -> str:
    """Write `compare.json`, `compare.md` and `compare.png`; returns the table."""
    (folder / "compare.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    text = table(result)
    (folder / "compare.md").write_text(text, encoding="utf-8")
    draw(result, folder / "compare.png")
    return text


def summary(rounds: list[dict[str, Any]]) -> dict[str, float]:
    """A contestant's speed over all rounds, and its peak memory."""
    seconds = sum(step["seconds"] for step in rounds)
    return {
        "tokens_per_second": sum(step["real"] for step in rounds) / seconds,
        "supervised_per_second": sum(step["supervised"] for step in rounds) / seconds,
        "median_tokens_per_second": statistics.median(step["real"] / step["seconds"] for step in rounds),
        "computed": sum(step["processed"] for step in rounds) / sum(step["real"] for step in rounds),
        "peak_gigabytes": max(step["peak_bytes"] for step in rounds) / 1e9,
        "seconds": seconds,
    }


def ratios(own: list[dict[str, Any]], other: list[dict[str, Any]]) -> tuple[float, float, float, float]:
    """The speed-up over all rounds, and the median, lowest and highest of single rounds."""
    speeds = [[step["real"] / step["seconds"] for step in rounds] for rounds in (own, other)]
    by_round = [a / b for a, b in zip(*speeds, strict=True)]
    total = summary(own)["tokens_per_second"] / summary(other)["tokens_per_second"]
    return total, statistics.median(by_round), min(by_round), max(by_round)


def table(result: dict[str, Any]) -> str:
    """The metrics as Markdown."""
    settings, contestants = result["settings"], result["contestants"]
    ceiling, own = max(result["ceiling_flops"]), contestants["lit_sft"]["rounds"]
    lines = [
        f"{_title(settings)}, {settings['threads']} threads, {len(own)} rounds"
        + (", side by side" if settings["side_by_side"] else ""),
        "",
        "| trainer | precision | tokens/s | supervised tokens/s | speed-up of lit_sft (median, range) | "
        "computed per token | peak memory | share of peak FLOP/s |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for entry in contestants.values():
        if "failure" in entry:
            lines.append(f"| {entry['label']} | failed: {entry['failure'].replace('|', ' ')} | | | | | | |")
            continue
        found = summary(entry["rounds"])
        total, median, low, high = ratios(own, entry["rounds"])
        faster = "" if entry["rounds"] is own else f"{total:.2f} x (median {median:.2f}, {low:.2f} to {high:.2f})"
        share = entry["needed_flops"] / found["seconds"] / ceiling
        lines.append(
            f"| {entry['label']} | {entry['facts']['precision']} | {found['tokens_per_second']:,.0f} | "
            f"{found['supervised_per_second']:,.0f} | {faster} | {found['computed']:.2f} | "
            f"{found['peak_gigabytes']:.1f} GB | {share:.0%} |"
        )
    probes = ", ".join(f"{flops / 1e9:,.0f}" for flops in result["ceiling_flops"])
    lines += ["", f"Matrix product before and after: {probes} GFLOP/s in {settings['precision']}."]
    lines += [f"- {entry['label']}: {_facts(entry['facts'])}" for entry in contestants.values() if entry.get("facts")]
    return "\n".join(lines) + "\n"


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw bars of speed, with the ceiling as a line, and of memory."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    settings = result["settings"]
    shown = [entry for entry in result["contestants"].values() if "failure" not in entry]
    found = [summary(entry["rounds"]) for entry in shown]
    labels = [f"{entry['label']}\n({entry['facts']['precision']})" for entry in shown]
    colours = ["tab:blue" if entry["label"] == "lit_sft" else "0.65" for entry in shown]
    figure, (speed, memory) = pyplot.subplots(
        1, 2, figsize=(11, 1.6 + 0.6 * len(shown)), sharey=True, width_ratios=(3, 2), layout="constrained"
    )
    for axes, name, places in ((speed, "tokens_per_second", "{:,.0f}"), (memory, "peak_gigabytes", "{:.1f}")):
        bars = axes.barh(labels, [row[name] for row in found], color=colours)
        axes.bar_label(bars, fmt=places, padding=3)
        axes.margins(x=0.15)
        axes.spines[["top", "right"]].set_visible(False)
    own = result["contestants"]["lit_sft"]
    ceiling = max(result["ceiling_flops"]) / own["needed_flops"] * sum(step["real"] for step in own["rounds"])
    speed.axvline(ceiling, color="tab:red", linestyle="--", label=f"matrix-product ceiling: {ceiling:,.0f}")
    speed.set_xlim(right=1.1 * max(ceiling, max(row["tokens_per_second"] for row in found)))
    speed.legend(loc="lower right", frameon=True)
    speed.invert_yaxis()
    speed.set_xlabel("tokens per second, without padding (higher is better)")
    memory.set_xlabel("peak memory, GB (lower is better)")
    title = f"{_title(settings)}"
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _facts(facts: dict[str, Any]) -> str:
    chosen = ", ".join(f"{name} {value}" for name, value in facts["settings"].items()) or "nothing chosen"
    return f"{chosen}; " + ", ".join(f"{name} {number}" for name, number in facts["versions"].items())


def _title(settings: dict[str, Any]) -> str:
    model = Path(settings["model"]).name
    kind = {"few_shot": "few-shot ", "tools": "tool-call ", "per_answer": "per-answer "}.get(settings["rows"], "")
    return f"{model}, {settings['tuning']}, {settings['precision']}, {settings['batch_size']} {kind}rows per step"
