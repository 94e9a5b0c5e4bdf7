"""The ledger of cleaning: what each rule changed and dropped, in records and characters, with examples."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from data_modules.cleaning.outcome import Change, Cleaned

EXAMPLES = 3
"""Examples kept of each rule: those of the first records by file and line."""

HEADER = ("rule", "records changed", "characters removed", "characters added", "records dropped", "characters dropped")
"""Columns of the ledger as a table."""

_NUMBER = re.compile(r"(\d+)")


@dataclass(frozen=True, slots=True)
class Example:
    """What a rule did to one record.

    Attributes:
        origin: Where the record is.
        before: The text around the first change, printable.
        after: The same place after the rule; empty if the record was dropped.
        reason: Why the record was dropped; empty if it was not.
    """

    origin: str
    before: str
    after: str = ""
    reason: str = ""

    def order(self) -> tuple[Any, ...]:
        """A key that sorts examples by file and line: `a:2` comes before `a:10`."""
        parts = _NUMBER.split(self.origin)
        numbers = tuple((int(number), number) for number in parts[1::2])
        return (tuple(parts[::2]), numbers, self.before, self.after, self.reason)


@dataclass
class RuleCounts:
    """What one rule did.

    Attributes:
        position: Place of the rule in the list, from 0.
        changed: Records that it changed.
        removed: Characters that it removed. A replaced character is removed, and its replacement added.
        added: Characters that it added.
        dropped: Records that it dropped.
        dropped_characters: Their characters, as they were when the rule saw them.
        examples: The first few records that it changed or dropped.
    """

    position: int
    changed: int = 0
    removed: int = 0
    added: int = 0
    dropped: int = 0
    dropped_characters: int = 0
    examples: list[Example] = field(default_factory=list)

    def add(self, change: Change, origin: str) -> None:
        """Count a change."""
        if change.is_drop:
            self.dropped += 1
            self.dropped_characters += change.removed
        else:
            self.changed += 1
            self.removed += change.removed
            self.added += change.added
        self._keep_first([Example(origin, change.before, change.after, change.reason)])

    def __add__(self, other: RuleCounts) -> RuleCounts:
        both = RuleCounts(
            min(self.position, other.position),
            self.changed + other.changed,
            self.removed + other.removed,
            self.added + other.added,
            self.dropped + other.dropped,
            self.dropped_characters + other.dropped_characters,
            list(self.examples),
        )
        both._keep_first(other.examples)
        return both

    def _keep_first(self, new: Iterable[Example]) -> None:
        self.examples = sorted([*self.examples, *new], key=Example.order)[:EXAMPLES]


@dataclass
class CleaningLedger:
    """What cleaning did to a set of records.

    characters_read == characters_kept + removed - added + dropped_characters, summed over the rules. Ledgers of parts
    of the records add up to the ledger of all, in any order.

    Attributes:
        records_read: Records before cleaning.
        records_kept: Records after cleaning.
        characters_read: Their characters before cleaning (code points).
        characters_kept: Characters of the records kept, after cleaning.
        rules: What each rule did, by its label.
    """

    records_read: int = 0
    records_kept: int = 0
    characters_read: int = 0
    characters_kept: int = 0
    rules: dict[str, RuleCounts] = field(default_factory=dict)

    @classmethod
    def of(cls, labels: Iterable[str]) -> CleaningLedger:
        """An empty ledger that lists rules even if they change nothing.

        Args:
            labels: Labels of the rules, in order.
        """
        return cls(rules={label: RuleCounts(position) for position, label in enumerate(labels)})

    def add(self, outcome: Cleaned, origin: str) -> None:
        """Count a record.

        Args:
            outcome: What cleaning did to it.
            origin: Where it is: `file:line`.
        """
        self.records_read += 1
        self.characters_read += outcome.characters_read
        self.records_kept += not outcome.is_dropped
        self.characters_kept += outcome.characters_kept
        for change in outcome.changes:
            self.rules.setdefault(change.rule, RuleCounts(change.position)).add(change, origin)

    def __add__(self, other: CleaningLedger) -> CleaningLedger:
        labels = {**self.rules, **other.rules}
        none = RuleCounts(sys.maxsize)
        return CleaningLedger(
            self.records_read + other.records_read,
            self.records_kept + other.records_kept,
            self.characters_read + other.characters_read,
            self.characters_kept + other.characters_kept,
            {label: self.rules.get(label, none) + other.rules.get(label, none) for label in labels},
        )

    def as_dict(self) -> dict[str, Any]:
        """The ledger as JSON values, with its rules in order. Equal ledgers give equal text."""
        by_place = sorted(self.rules.items(), key=lambda item: (item[1].position, item[0]))
        return {**asdict(self), "rules": {label: asdict(counts) for label, counts in by_place}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CleaningLedger:
        """The ledger from which `as_dict` made these values."""
        rules = {
            label: RuleCounts(**{**counts, "examples": [Example(**each) for each in counts["examples"]]})
            for label, counts in values["rules"].items()
        }
        return cls(**{**values, "rules": rules})

    def rows(self) -> list[tuple[str, ...]]:
        """The ledger as the rows of a table with the columns of `HEADER`; the last row is the total."""
        counts = sorted(self.rules.items(), key=lambda item: (item[1].position, item[0]))
        names = ("changed", "removed", "added", "dropped", "dropped_characters")
        rows = [(label, *(f"{getattr(each, name):,}" for name in names)) for label, each in counts]
        total = [sum(getattr(each, name) for _, each in counts) for name in names[1:]]
        # a record may be changed by several rules, so records changed have no sum
        return [*rows, ("total", "", *(f"{number:,}" for number in total))]

    def summary(self) -> str:
        """One line: records and characters kept of those read."""
        return (
            f"{self.records_kept:,} of {self.records_read:,} records kept, "
            f"{self.characters_kept:,} of {self.characters_read:,} characters"
        )
