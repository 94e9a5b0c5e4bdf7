"""A comparison as one HTML page, without scripts. All text is escaped."""

from __future__ import annotations

from pathlib import Path

from lit_sft.files import write_text
from lit_sft.reporting.page import FILTERS
from lit_sft.reporting.templates import render
from lit_sft.reporting.token_view import MARKS_LEGEND
from lit_sft.tokenization.compare_tables import by_script, changes, longest_entries, overview, summary
from lit_sft.tokenization.comparison import Comparison


def write_page(path: str, comparison: Comparison) -> None:
    """Write the page.

    Args:
        path: The file to write.
        comparison: What it shows.
    """
    write_text(Path(path), page(comparison))


def page(comparison: Comparison) -> str:
    """The comparison as one HTML document."""
    faults = changes(comparison)
    return render(
        "tokenizers.html",
        FILTERS,
        names=[tokenizer.name for tokenizer in comparison.tokenizers],
        summary=summary(comparison),
        shown=[overview(comparison), by_script(comparison)],
        folded=[
            *([faults] if faults.rows or any(usage.first_change for usage in comparison.measures.usages) else []),
            *longest_entries(comparison),
        ],
        words=comparison.words,
        excerpts=comparison.excerpts,
        marks=MARKS_LEGEND,
    )
