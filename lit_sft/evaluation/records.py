"""What a model scored on an item, as a line of a file: sums and what they are over, so that any mean follows."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any

from data_modules.conversation import Conversation
from data_modules.encoded_data import Sources, read_conversations
from data_modules.ledger import Ledger

Figures = dict[str, tuple[float, float]]
"""A figure's name to what the item adds, and what it weighs: nats and tokens, or 1 and 1 for a right answer."""


@dataclass(frozen=True)
class Scored:
    """An item's scores.

    Attributes:
        item: Names it, the same for all models.
        figures: See Figures.
        group: A part of the set that is looked at by itself, such as a subject.
        details: What a reader wants to see: the answer, the scores of the options.
    """

    item: str
    figures: Figures
    group: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass
class Skipped:
    """Items that could not be scored, each of which costs itself alone.

    Attributes:
        reasons: By item or place.
    """

    reasons: list[str] = field(default_factory=list)

    def add(self, reason: str) -> None:
        """Note one."""
        self.reasons.append(reason)


def read_items(
    data: str | list[str], rows: int | None, skipped: Skipped, *, format: str | None = None, answered: bool = True
) -> list[Conversation]:
    """The first records of files, those that are invalid left out and noted.

    Args:
        data: Files, as `fit` reads them.
        rows: How many at most.
        skipped: Told of those left out.
        format: How records are read. None: recognised.
        answered: Whether a bare prompt is invalid.

    Raises:
        ValueError: If nothing is left.
    """
    files = [data] if isinstance(data, str) else list(data)
    ledger = Ledger("drop")
    sources = Sources({"items": files}, format=format, on_invalid="drop", require_answer=answered)
    found: list[Conversation] = []
    for conversation in read_conversations("items", sources, ledger):
        if len(found) == rows:
            break
        found.append(conversation)
    for reason in ledger.invalid:
        skipped.add(re.sub(r",? or set `--data.on_invalid drop`", "", reason))
    if not found:
        raise ValueError(f"{', '.join(files)}: no record that can be scored ({'; '.join(ledger.invalid[:3])}).")
    return found
