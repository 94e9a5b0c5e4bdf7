"""Replies of models that think before they answer."""

from __future__ import annotations

from data_modules.records.thinking import without_thinking

_START, _END = "<think>", "</think>"
_JSON = ("{", "[", "```")


def answer_of(reply: str) -> str:
    """A reply without the thoughts at its start and the white space around it; empty if it ends before they do.

    Where a chat template writes the opening <think>, the reply has only the closing one.
    """
    answer = without_thinking(reply).strip()
    if answer.startswith(_START):
        return ""
    thoughts, end, rest = answer.partition(_END)
    return rest.strip() if end and not thoughts.startswith(_JSON) else answer
