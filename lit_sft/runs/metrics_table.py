"""The metrics of a split as a table for the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table


def print_metrics(console: Console, title: str, columns: dict[str, dict[str, float]]) -> None:
    """Print a table of perplexities by segment and mask, with one column per set of metrics."""
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


def is_text(metrics: dict[str, float]) -> bool:
    """Whether all tokens are plain text, so that every mask gives the same figures."""
    return "bits_per_byte/text" in metrics and metrics["tokens/text"] == metrics["tokens/whole_sequence"]
