"""Counts of a split's records before encoding: read, invalid, duplicate, left out."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Literal

from data_modules.errors import UserError
from data_modules.records.known_fields import FoundFields
from data_modules.records.record import readable
from data_modules.records.rejections import reason_of, with_advice, without_advice

OnInvalid = Literal["error", "drop"]

LISTED = 100
"""How many messages are kept verbatim."""

_KINDS_OF_FAULT = 1000
"""Maximum number of reasons counted separately, so that damaged data cannot exhaust memory."""

_UNKNOWN_NAMES = 100
"""Maximum number of unknown fields counted by name in a file, for the same reason."""


@dataclass
class RecordCounts:
    """Counts of the records of one split.

    Attributes:
        on_invalid: Whether an invalid record ends the run or is counted here.
        records_read: Records of this split, and invalid ones, whose split is unknown.
        left_out: Records of a training file left out by `train_fraction`; not included in `records_read`.
        num_invalid: Number of invalid records.
        invalid: Messages for the first hundred of them: unreadable records first, then those the template rejects.
        reasons: Number of invalid records by reason; see `reason_of`.
        duplicates: Conversations left out because another split holds the same one, or one of the same group.
        formats: The format detected in each file.
        unknown_fields: Fields that nothing reads: for each file, the number of records with each.
        changed_turns: How many turns were dropped or joined, by what was done.
        columns_found: Columns of `--data.columns` that some record has.
    """

    on_invalid: OnInvalid = "error"
    records_read: int = 0
    left_out: int = 0
    num_invalid: int = 0
    invalid: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    formats: list[str] = field(default_factory=list)
    unknown_fields: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    changed_turns: Counter[str] = field(default_factory=Counter)
    columns_found: set[str] = field(default_factory=set)

    def count_fields(self, file: str, found: FoundFields) -> None:
        """Count a record's fields other than those of its format."""
        for name in map(readable, found.unknown):
            names = self.unknown_fields[file]
            names[name if name in names or len(names) < _UNKNOWN_NAMES else "other fields"] += 1

    def count_changes(self, changes: Counter[str]) -> None:
        """Count how many turns of a record were dropped or joined, by what was done."""
        if changes:
            self.changed_turns += changes

    def reject(self, message: str) -> None:
        """Count an invalid record, or raise its message, which says how to drop it.

        Raises:
            UserError: If `on_invalid` is `error`.
        """
        if self.on_invalid == "error":
            raise UserError(with_advice(message))
        message = without_advice(message)
        self.num_invalid += 1
        reason = reason_of(message)
        self.reasons[reason if reason in self.reasons or len(self.reasons) < _KINDS_OF_FAULT else "other faults"] += 1
        if len(self.invalid) < LISTED:
            self.invalid.append(message)
