"""What a model scored on an item, as a line of a file: sums and what they are over, so that any mean follows."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from data_modules.encoding.ledger import Ledger
from data_modules.errors import UserError
from data_modules.records.conversation import Conversation
from data_modules.records.splits import Sources, read_conversations

Metrics = dict[str, tuple[float, float]]
"""A metric's name to what the item adds, and what it weighs: nats and tokens, or 1 and 1 for a right answer."""


@dataclass(frozen=True)
class Scored:
    """An item's scores.

    Attributes:
        item: Names it, the same for all models.
        metrics: See Metrics.
        group: A part of the set that is looked at by itself, such as a subject.
        details: What a reader wants to see: the answer, the scores of the options.
    """

    item: str
    metrics: Metrics
    group: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """As JSON."""
        return {"item": self.item, "figures": self.metrics, "group": self.group, "details": self.details}

    def with_means(self, skipped: Skipped) -> Scored:
        """The same without metrics that no mean can be taken of, which are noted."""
        metrics = {name: pair for name, pair in self.metrics.items() if has_mean(*pair)}
        for name, (value, weight) in self.metrics.items():
            if name not in metrics:
                skipped.add(f"{self.item}: {name} is {value:g} with a weight of {weight:g}; left out of this metric.")
        return self if len(metrics) == len(self.metrics) else replace(self, metrics=metrics)


def has_mean(value: float, weight: float) -> bool:
    """Whether a mean can be taken of what an item adds: it is finite and weighs something."""
    return math.isfinite(value) and math.isfinite(weight) and weight > 0


_LISTED = 100


@dataclass
class Skipped:
    """Items that were not scored, or not in every metric.

    Attributes:
        reasons: The first hundred, each with its item or place.
        count: All of them.
    """

    reasons: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, *reasons: str, count: int | None = None) -> None:
        """Note some.

        Args:
            reasons: Why, of each that is known.
            count: How many they are, where not all are known.
        """
        self.count += len(reasons) if count is None else count
        self.reasons += reasons[: _LISTED - len(self.reasons)]


def read_items(
    data: str | list[str], rows: int | None, skipped: Skipped, *, format: str | None = None, answered: bool = True
) -> list[Conversation]:
    """The first records of files, those that are invalid left out and noted.

    Args:
        data: Files, as `fit` reads them.
        rows: How many at most.
        skipped: Those left out are added to it.
        format: How records are read. None: recognised.
        answered: Whether a bare prompt is invalid.

    Raises:
        UserError: If nothing is left.
    """
    files = [data] if isinstance(data, str) else list(data)
    ledger = Ledger("drop")
    sources = Sources({"items": files}, format=format, on_invalid="drop", require_answer=answered)
    found: list[Conversation] = []
    for conversation in read_conversations("items", sources, ledger):
        if len(found) == rows:
            break
        found.append(conversation)
    skipped.add(*ledger.invalid, count=ledger.num_invalid)
    if not found:
        raise UserError(f"{', '.join(files)}: no record that can be scored; {ledger.num_invalid:,} are invalid.")
    return found
