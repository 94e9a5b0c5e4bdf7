"""The metrics of a split as a table for the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from lit_sft.console import cell


def print_metrics(console: Console, title: str, columns: dict[str, dict[str, float]]) -> None:
    """Print a table of perplexities by segment and mask, with one column per set of metrics, and one of preferences."""
    table = Table(title=title, title_justify="left")
    table.add_column("perplexity on")
    for name in columns:
        table.add_column(name, justify="right")
    table.add_column("tokens", justify="right")
    last = list(columns.values())[-1]
    names = [key.removeprefix("perplexity/") for key in last if key.startswith("perplexity/")]
    names = ["text"] if is_text(last) else names
    for name in names:
        values = [f"{metrics[f'perplexity/{name}']:,.2f}" if metrics else "" for metrics in columns.values()]
        table.add_row(name.replace("_", " "), *values, f"{int(last[f'tokens/{name}']):,}")
    if is_text(last):
        values = [f"{metrics['bits_per_byte/text']:.4f}" if metrics else "" for metrics in columns.values()]
        table.add_row("text, bits per byte", *values, f"{int(last['tokens/text']):,}")
    console.print(table)
    _print_preferences(console, title, columns)


_PREFERENCES = {
    "preference_accuracy": ("chosen answer likelier", ".1%"),
    "reward_accuracy": ("reward of the chosen answer higher", ".1%"),
    "reward_margin": ("margin of the rewards", ".4f"),
    "preference_loss": ("loss of the objective", ".4f"),
}
"""Rows of the table of preferences: what each metric is called there, and its format."""


def _print_preferences(console: Console, title: str, columns: dict[str, dict[str, float]]) -> None:
    """Print a table of how well the model prefers the better answers; nothing without preference pairs or ratings."""
    shown = {name: row for name, row in _PREFERENCES.items() if any(name in metrics for metrics in columns.values())}
    if not shown:
        return
    table = Table(title=f"{title}, preferences", title_justify="left")
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    for metric, (heading, form) in shown.items():
        values = [f"{metrics[metric]:{form}}" if metric in metrics else "" for metrics in columns.values()]
        table.add_row(heading, *values)
    console.print(table)


_BY_SOURCE = {
    "loss": ("loss", ".4f"),
    "perplexity on the answer": ("perplexity/answer", ",.2f"),
    "perplexity on text": ("perplexity/text", ",.2f"),
    "bits per byte": ("bits_per_byte/text", ".4f"),
}
"""Columns of the table by source: the metric of each, and its format."""


def print_sources(console: Console, title: str, metrics: dict[str, float]) -> None:
    """Print a table with a row for each source of a mixture that has rows; nothing without a mixture.

    Args:
        console: Where to print.
        title: Heading of the table.
        metrics: Those of a split, by name, such as `source/NAME/loss`.
    """
    names = sorted({key.removeprefix("source/").removesuffix("/loss") for key in metrics if _is_of_source(key)})
    shown = {
        heading: place
        for heading, place in _BY_SOURCE.items()
        if any(f"source/{name}/{place[0]}" in metrics for name in names)
    }
    if not names:
        return
    table = Table(title=f"{title} by source", title_justify="left")
    table.add_column("source")
    for heading in shown:
        table.add_column(heading, justify="right")
    for name in names:
        values = [(metrics.get(f"source/{name}/{metric}"), form) for metric, form in shown.values()]
        table.add_row(cell(name), *("" if value is None else f"{value:{form}}" for value, form in values))
    console.print(table)


def _is_of_source(key: str) -> bool:
    return key.startswith("source/") and key.endswith("/loss")


def is_text(metrics: dict[str, float]) -> bool:
    """Whether all tokens are plain text, so that every mask gives the same figures."""
    return "bits_per_byte/text" in metrics and metrics["tokens/text"] == metrics["tokens/whole_sequence"]
