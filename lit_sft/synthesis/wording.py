"""What the terminal, the page and the datasheet say alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def tokens_in_words(usage: Mapping[str, Any]) -> str:
    """Tokens of a synthesis, as far as the endpoint reported them, such as `700 tokens read and 120 written`.

    Args:
        usage: Of its summary.
    """
    counts = f"{usage['tokens_read']:,} tokens read and {usage['tokens_written']:,} written"
    if not usage["unmetered"]:
        return counts
    if usage["unmetered"] == usage["replies"]:
        return "tokens unknown (the endpoint reports none)"
    return f"at least {counts} (the endpoint did not report those of all replies)"


def stopped_in_words(stopped: str) -> str:
    """Why not everything was asked for, as a sentence of the page.

    Args:
        stopped: As in the summary, not empty.
    """
    return f"The run is not complete: {stopped.removeprefix('requests stopped: ')}"


def whole_of(summary: Mapping[str, Any]) -> str:
    """What the conversations with one `article_id` have in common.

    Args:
        summary: Of a synthesis.
    """
    return {"question": "source", "request": "request"}.get(summary["subject"], "article")
