"""A model's scores on one item: sums with their weights, from which any mean can be computed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from data_modules.encoding.ledger import Ledger
from data_modules.errors import UserError
from data_modules.records.columns import check_found
from data_modules.records.conversation import Conversation
from data_modules.records.splits import Sources, read_conversations

Metrics = dict[str, tuple[float, float]]
"""Value and weight by metric: nats and tokens, or 1 and 1 for a right answer."""


@dataclass(frozen=True)
class Scored:
    """An item's scores.

    Attributes:
        item: Name, the same for all models.
        metrics: See Metrics.
        group: Part of the set that is also reported separately, such as a subject.
        details: For readers: the answer, the chosen options.
    """

    item: str
    metrics: Metrics
    group: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """As JSON."""
        return {"item": self.item, "figures": self.metrics, "group": self.group, "details": self.details}

    def with_means(self, skipped: Skipped) -> Scored:
        """Drop metrics that have no mean, and note them in `skipped`."""
        metrics = {name: pair for name, pair in self.metrics.items() if has_mean(*pair)}
        for name, (value, weight) in self.metrics.items():
            if name not in metrics:
                skipped.add(f"{self.item}: {name} is {value:g} with a weight of {weight:g}; skipped in this metric.")
        return self if len(metrics) == len(self.metrics) else replace(self, metrics=metrics)


def has_mean(value: float, weight: float) -> bool:
    """Whether an item can enter a mean: its value is finite and its weight positive."""
    return math.isfinite(value) and math.isfinite(weight) and weight > 0


_LISTED = 100


@dataclass
class Skipped:
    """Items that were not scored, or not in every metric.

    Attributes:
        reasons: The first hundred reasons, each with its item or place.
        count: Number of all skipped items.
    """

    reasons: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, *reasons: str, count: int | None = None) -> None:
        """Add skipped items.

        Args:
            reasons: Known reasons.
            count: Number of items, if more than the known reasons.
        """
        self.count += len(reasons) if count is None else count
        self.reasons += reasons[: _LISTED - len(self.reasons)]


def read_items(
    data: str | list[str],
    rows: int | None,
    skipped: Skipped,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    *,
    answered: bool = True,
) -> list[Conversation]:
    """Read the first records of files; invalid ones are skipped.

    Args:
        data: Files, as `fit` reads them.
        rows: Maximum number of records. None: all.
        skipped: Collects the invalid ones.
        format: How records are read. None: recognised.
        columns: Fields of the format that have other names in the files.
        answered: Whether records without an answer are invalid.

    Raises:
        UserError: If no record is valid, or none has one of the columns.
    """
    files = [data] if isinstance(data, str) else list(data)
    ledger = Ledger("drop")
    sources = Sources(
        {"items": files}, format=format, on_invalid="drop", columns=dict(columns or {}), require_answer=answered
    )
    found: list[Conversation] = []
    for conversation in read_conversations("items", sources, ledger):
        if len(found) == rows:
            break
        found.append(conversation)
    names = {name for counts in ledger.unknown_fields.values() for name in counts}
    check_found(sources.columns, ledger.columns_found, names, option="columns")
    skipped.add(*ledger.invalid, count=ledger.num_invalid)
    if not found:
        raise UserError(f"{', '.join(files)}: no record can be scored; {ledger.num_invalid:,} are invalid.")
    return found
