"""Why records are invalid. Messages that differ only in place and value share one reason."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from data_modules.wording import counted

_PLACE = re.compile(r"^.*?:(?:row )?\d+(?: \(record \d+\))?: ", re.DOTALL)
_NUMBER = r"(?<!UTF)(?<!UTF-)-?\d+(?:\.\d+)?(?:e[-+]?\d+)?"
_VALUES = re.compile(rf"((?:field|format) )?(['\"]).*?\2|(?<=the number )(?:nan|-?inf)\b|{_NUMBER}", re.DOTALL)
_DROP = "`--data.on_invalid drop`"
_TO_DROP = f" To drop invalid records, set {_DROP}."
_ADVICE = re.compile(rf"{re.escape(_TO_DROP)}|,? or set {_DROP}")
_MOST_CHARACTERS = 200

_SHOWN = 3
"""Maximum number of reasons listed in a message."""


def reason_of(message: str) -> str:
    """A message without its place and values, so that similar ones can be counted together."""
    message = _PLACE.sub("", message)
    return _VALUES.sub(lambda value: value[0] if value[1] else "_", message)[:_MOST_CHARACTERS]


def with_advice(message: str) -> str:
    """A message with the advice to drop the record, for when it stops the run."""
    return message if _DROP in message else message + _TO_DROP


def without_advice(message: str) -> str:
    """A message without the advice to drop the record, for when records are dropped or all are invalid."""
    return _ADVICE.sub("", message)


def count_reasons(reasons: Mapping[str, int], examples: Iterable[str]) -> str:
    """List the most frequent reasons with their counts, each with its first message.

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
    return " | ".join([*parts, *([counted(more, "other kind of error", "other kinds of error")] if more else [])])
