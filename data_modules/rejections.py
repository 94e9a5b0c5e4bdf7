"""Why records are invalid: one reason for all messages that differ only in their place and in the value found."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

_PLACE = re.compile(r"^.*?:(?:row )?\d+(?: \(record \d+\))?: ", re.DOTALL)
_VALUES = re.compile(r"(?<!field )(?<!format )(['\"]).*?\1|\d+", re.DOTALL)
_MOST_CHARACTERS = 200

_SHOWN = 3
"""Reasons in a message."""


def reason_of(message: str) -> str:
    """A message without what differs from record to record, to count by."""
    return _VALUES.sub("_", _PLACE.sub("", message))[:_MOST_CHARACTERS]


def count_reasons(reasons: Counter[str], examples: Iterable[str]) -> str:
    """The most frequent reasons with their counts, each by the first message that gives it.

    Args:
        reasons: Counts by `reason_of`.
        examples: Some of the messages, in order.
    """
    first: dict[str, str] = {}
    for message in examples:
        first.setdefault(reason_of(message), message)
    parts = [f"{count:,} x {first.get(reason, reason)}" for reason, count in reasons.most_common(_SHOWN)]
    more = len(reasons) - len(parts)
    return " | ".join(parts) + (f" | {more} more kinds of fault" if more else "")
