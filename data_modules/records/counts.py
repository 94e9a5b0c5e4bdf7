"""What became of the records of a split before they are encoded: read, invalid, duplicate, left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from data_modules.errors import UserError
from data_modules.records.rejections import reason_of, without_advice

OnInvalid = Literal["error", "drop"]

LISTED = 100
"""Messages that are kept word for word."""

_KINDS_OF_FAULT = 1000
"""Reasons that are counted by themselves; damaged data must not fill the memory with more."""


@dataclass
class RecordCounts:
    """Counts of the records of one split.

    Attributes:
        on_invalid: Whether an invalid record ends the run or is counted here.
        records_read: Records found in the files for this split, or not attributable to one (invalid ones).
        left_out: Records of a training file that are not trained on because only a share is; not among those read.
        num_invalid: How many records are invalid.
        invalid: Messages of the first hundred of them; those that cannot be read come before those that the template
            refuses.
        reasons: Why records are invalid, to how many are; see `reason_of`.
        duplicates: Conversations left out because another split holds the same one, or one of the same group.
        formats: The format of each file, where it was recognised.
    """

    on_invalid: OnInvalid = "error"
    records_read: int = 0
    left_out: int = 0
    num_invalid: int = 0
    invalid: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    formats: list[str] = field(default_factory=list)

    def reject(self, message: str) -> None:
        """Count an invalid record, or end with its message.

        Raises:
            UserError: If the policy is `error`.
        """
        if self.on_invalid == "error":
            raise UserError(message)
        message = without_advice(message)
        self.num_invalid += 1
        reason = reason_of(message)
        self.reasons[reason if reason in self.reasons or len(self.reasons) < _KINDS_OF_FAULT else "other faults"] += 1
        if len(self.invalid) < LISTED:
            self.invalid.append(message)
