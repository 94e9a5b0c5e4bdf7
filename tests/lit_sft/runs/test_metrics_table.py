"""The metrics of a split by source of the mixture, and those of preferences."""

from __future__ import annotations

import io

from rich.console import Console

from lit_sft.runs.metrics_table import print_metrics, print_sources


def printed(metrics: dict[str, float]) -> list[list[str]]:
    console = Console(file=io.StringIO(), width=200)
    print_sources(console, "test", metrics)
    return cells(console)


def cells(console: Console) -> list[list[str]]:
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().replace("┃", "│").splitlines()
    return [[part.strip() for part in line.split("│") if part.strip()] for line in lines if "│" in line]


def test_every_source_has_a_row_with_the_metrics_that_it_has() -> None:
    metrics = {
        "loss": 3.0,
        "source/b/loss": 2.5, "source/b/perplexity/text": 1234.5, "source/b/bits_per_byte/text": 1.25,
        "source/a.1/loss": 1.0, "source/a.1/perplexity/answer": 2.72, "source/a.1/nll/answer": 1.0,
    }  # fmt: skip
    assert printed(metrics) == [
        ["source", "loss", "perplexity on the answer", "perplexity on text", "bits per byte"],
        ["a.1", "1.0000", "2.72"],
        ["b", "2.5000", "1,234.50", "1.2500"],
    ]


def test_without_a_mixture_nothing_is_printed() -> None:
    assert printed({"loss": 3.0, "perplexity/text": 20.0}) == []


def test_preferences_have_a_table_of_their_own() -> None:
    answer = {"perplexity/answer": 2.0, "tokens/answer": 9, "tokens/whole_sequence": 12}
    before = answer | {"preference_accuracy": 0.5, "preference_loss": 0.6931}
    best = answer | {"preference_accuracy": 0.75, "preference_loss": 0.5, "reward_margin": 0.25}
    console = Console(file=io.StringIO(), width=200)
    print_metrics(console, "validation", {"before": before, "best": best})
    assert cells(console) == [
        ["perplexity on", "before", "best", "tokens"],
        ["answer", "2.00", "2.00", "9"],
        ["before", "best"],
        ["chosen answer likelier", "50.0%", "75.0%"],
        ["margin of the rewards", "0.2500"],
        ["loss of the objective", "0.6931", "0.5000"],
    ]
