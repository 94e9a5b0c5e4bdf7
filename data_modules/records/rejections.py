"""Why records are invalid: one reason for all messages that differ only in their place and in the value found."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

_PLACE = re.compile(r"^.*?:(?:row )?\d+(?: \(record \d+\))?: ", re.DOTALL)
_NUMBER = r"(?<!UTF)(?<!UTF-)-?\d+(?:\.\d+)?(?:e[-+]?\d+)?"
_VALUES = re.compile(rf"((?:field|format) )?(['\"]).*?\2|(?<=the number )(?:nan|-?inf)\b|{_NUMBER}", re.DOTALL)
_ADVICE = re.compile(r",? or set `--data.on_invalid drop`")
_MOST_CHARACTERS = 200

_SHOWN = 3
"""Reasons in a message."""


def reason_of(message: str) -> str:
    """A message without what differs from record to record, to count by."""
    said = _PLACE.sub("", message)
    return _VALUES.sub(lambda value: value[0] if value[1] else "_", said)[:_MOST_CHARACTERS]


def without_advice(message: str) -> str:
    """A message without the advice to drop the record: for where it is dropped, or all of them are invalid."""
    return _ADVICE.sub("", message)


def count_reasons(reasons: Mapping[str, int], examples: Iterable[str]) -> str:
    """The most frequent reasons with their counts, each with the first message that gives it.

    Args:
        reasons: Counts by `reason_of`.
        examples: Some of the messages, in order.
    """
    first: dict[str, str] = {}
    for message in examples:
        first.setdefault(reason_of(message), message)
    parts = [
        f"{count:,} like {without_advice(first.get(reason, reason)).rstrip('.')}"
        for reason, count in Counter(reasons).most_common(_SHOWN)
    ]
    more = len(reasons) - len(parts)
    return " | ".join([*parts, *([f"{more:,} other kinds of fault"] if more else [])])
