"""Prompts to choose from: those of a suite of `evaluate`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from data_modules.errors import UserError
from data_modules.records.conversation import Conversation, Role
from data_modules.records.counts import RecordCounts
from data_modules.records.splits import Sources, read_conversations
from data_modules.wording import kind_of
from lit_sft.files import read_yaml

_USUAL_ROWS = 100
"""Records of a set of answers, as in `evaluate`."""


def read_prompts(path: str) -> list[str]:
    """The prompts of a suite: of its sets of `prompts`, and the questions of its sets of `answers`, each once.

    Questions of several turns are left out: they are not a single message.

    Args:
        path: A suite, such as configs/evaluate/quickstart.yaml.

    Raises:
        UserError: If it cannot be read, or has no prompts.
    """
    values = read_yaml(path, advice="Suites are in configs/evaluate/.", usual=Path("configs/evaluate"))
    if not isinstance(values, dict):
        raise UserError(f"{path}: found {kind_of(values)}; expected a suite with sets of `prompts` or `answers`.")
    try:
        fixed = [text for name, settings in _sets(values, "prompts") for text in _fixed(name, settings)]
        asked = [text for name, settings in _sets(values, "answers") for text in _questions(name, settings)]
    except UserError as error:
        raise UserError(f"--suite {path}: {error}") from None
    prompts = list(dict.fromkeys([*fixed, *asked]))
    if not prompts:
        raise UserError(f"--suite {path}: no prompts; expected sets of `prompts` or `answers`.")
    return prompts


def _sets(values: Mapping[str, Any], kind: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    sets = values.get(kind) or {}
    if not isinstance(sets, dict):
        raise UserError(f"{kind}: found {kind_of(sets)}; expected names of sets and their settings.")
    for name, settings in sets.items():
        if not isinstance(settings, dict):
            raise UserError(f"{kind}.{name}: found {kind_of(settings)}; expected settings.")
        yield f"{kind}.{name}", settings


def _fixed(name: str, settings: Mapping[str, Any]) -> list[str]:
    prompts = settings.get("prompts")
    if not isinstance(prompts, list) or not all(isinstance(text, str) and text.strip() for text in prompts):
        raise UserError(f"{name}.prompts: expected a list of texts, none of them empty.")
    return prompts


def _questions(name: str, settings: Mapping[str, Any]) -> list[str]:
    data, rows = settings.get("data"), settings.get("rows", _USUAL_ROWS)
    files = [data] if isinstance(data, str) else data
    if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
        raise UserError(f"{name}.data: expected a file or a list of files.")
    if rows is not None and (not isinstance(rows, int) or rows < 1):
        raise UserError(f"{name}.rows: found {rows!r}; expected a whole number of at least 1, or null.")
    sources = Sources(
        {"items": files}, format=settings.get("format"), on_invalid="drop", columns=dict(settings.get("columns") or {})
    )
    read = islice(read_conversations("items", sources, RecordCounts("drop")), rows)
    return [question for conversation in read if (question := _question(conversation))]


def _question(conversation: Conversation) -> str:
    """The only message before the answer; empty if it is not the only one."""
    turns = conversation.turns[:-1]
    if len(turns) != 1 or turns[0].role is not Role.USER:
        return ""
    return "\n\n".join(filter(None, (turns[0].content, turns[0].context)))
