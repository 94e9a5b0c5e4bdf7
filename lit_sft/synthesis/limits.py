"""The limits that a prompt mentions, and the check `lengths`, which should not refuse what the prompt allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lit_sft.scripts import Language
from lit_sft.synthesis.checks.lengths import Lengths

_OPTIONS = {"question_length": "question", "task_length": "question", "answer_length": "answer"}
"""Options of `lengths` by the limit that they go with; in Chinese, with `_zh` after them."""


def with_room_for(
    limits: Mapping[str, int], rules: Sequence[tuple[str, Any]], languages: Sequence[Language]
) -> list[tuple[str, Any]]:
    """Rules in which `lengths` accepts everything up to the given limits.

    Args:
        limits: Limits of a recipe by name, in words or characters of Chinese.
        rules: Names and rules.
        languages: Those of the prompts.
    """
    return [
        (name, replace(rule, **{option: (getattr(rule, option)[0], most) for option, (most, _) in found.items()}))
        for name, rule in rules
        for found in [_exceeded(limits, rule, languages)]
    ]


def contradictions(
    limits: Mapping[str, int], rules: Sequence[tuple[str, Any]], languages: Sequence[Language]
) -> list[str]:
    """A sentence about each limit that is above the one of `lengths`; see `with_room_for`."""
    return [
        f"--limits {limit} {most}: the check lengths refuses more than {getattr(rule, option)[1]} ({option}); raise "
        "it in --checks"
        for _, rule in rules
        for option, (most, limit) in _exceeded(limits, rule, languages).items()
    ]


def _exceeded(limits: Mapping[str, int], rule: Any, languages: Sequence[Language]) -> dict[str, tuple[int, str]]:
    """Limits above those of a rule, and their names, by option."""
    if not isinstance(rule, Lengths):
        return {}
    found: dict[str, tuple[int, str]] = {}
    for limit, most in limits.items():
        for language in languages if limit in _OPTIONS else ():
            option = _OPTIONS[limit] + ("_zh" if language == "zh" else "")
            if most > max(getattr(rule, option)[1], found.get(option, (0, ""))[0]):
                found[option] = (most, limit)
    return found
