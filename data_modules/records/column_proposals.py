"""Proposes `--data.columns` for records whose fields no format has, from the names that such fields often have."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_NAMES = {
    "instruction": ("instruction", "question", "query", "prompt", "problem", "user", "human", "task", "request", "q"),
    "output": ("output", "answer", "response", "completion", "solution", "reply", "assistant", "target", "a"),
    "input": ("context", "passage"),
    "system": ("system_prompt", "system_message"),
}
"""Usual names of a column by the field it should be read as, likeliest first; compared without case."""

_TEXTS = ("content", "document", "body", "article", "story", "raw_content")

_YAML_WORDS = ("null", "true", "false", "yes", "no", "on", "off", "y", "n")
"""Words that YAML does not read as text."""

_LISTS = {"messages": ("role", "content"), "conversations": ("from", "value"), "conversation": ("human", "assistant")}
"""Fields with a list of messages, by the fields of a message."""


def proposal(fields: Mapping[str, Any], *, has_prompt: bool = False) -> str:
    """The option that would make a record readable, such as `--data.columns '{instruction: question}'`; may be empty.

    Args:
        fields: The record's.
        has_prompt: Whether its prompt is already read, so that only the answer is missing.
    """
    columns = _answer(fields) if has_prompt else proposed_columns(fields)
    return f"`{as_option(columns)}`" if columns else ""


def proposed_columns(fields: Mapping[str, Any]) -> dict[str, str]:
    """The columns that would make a record readable, by the field that is read from each; may be empty."""
    return _chat(fields) or _pair(fields) or _text(fields)


def text_proposal(fields: Mapping[str, Any]) -> str:
    """The same for plain text: the option that names the field with the text; may be empty."""
    columns = _text(fields)
    return f"`{as_option(columns)}`" if columns else ""


def as_option(columns: Mapping[str, str]) -> str:
    """Columns as the user would type them."""
    pairs = ", ".join(f"{field}: {_quoted(column)}" for field, column in columns.items())
    return f"--data.columns '{{{pairs}}}'"


def _chat(fields: Mapping[str, Any]) -> dict[str, str]:
    for name, value in fields.items():
        first = value[0] if isinstance(value, list) and value else None
        for known, keys in _LISTS.items():
            if isinstance(first, dict) and first.keys() >= {*keys} and _is_typeable(name):
                return {known: name}
    return {}


def _pair(fields: Mapping[str, Any]) -> dict[str, str]:
    columns = {known: column for known in _NAMES if (column := _column(fields, _NAMES[known]))}
    if not {"instruction", "output"} <= columns.keys():
        return {}
    return {known: column for known, column in columns.items() if known != column}


def _answer(fields: Mapping[str, Any]) -> dict[str, str]:
    known = "output" if "instruction" in fields else "completion"
    column = _column(fields, [name for name in _NAMES["output"] if name != known])
    return {known: column} if column else {}


def _text(fields: Mapping[str, Any]) -> dict[str, str]:
    column = _column(fields, _TEXTS)
    return {"text": column} if column else {}


def _column(fields: Mapping[str, Any], names: tuple[str, ...] | list[str]) -> str:
    """The first column with one of the names and a text."""
    present = {name.casefold(): name for name in fields if isinstance(fields[name], str) and _is_typeable(name)}
    return next((present[name] for name in names if name in present), "")


def _is_typeable(name: str) -> bool:
    return name.isprintable() and "'" not in name and len(name) <= 60


def _quoted(name: str) -> str:
    is_plain = re.fullmatch(r"[A-Za-z_][\w-]*", name) and name.casefold() not in _YAML_WORDS
    return name if is_plain else json.dumps(name, ensure_ascii=False)
