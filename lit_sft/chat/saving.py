"""Saves a conversation as records that `fit` can read: every answer with what the model was given for it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_modules.errors import UserError
from data_modules.records.conversation import Message, Role
from lit_sft.chat.session import ChatSession, Exchange
from lit_sft.files import append_lines

_LONGEST_LINE = 2**26
"""Bytes; no conversation is that long."""


def records_of(session: ChatSession, *, num_saved: int = 0) -> list[dict[str, Any]]:
    """The conversation as records, each answer with what the model was given for it.

    One record, unless the system message was changed or the oldest exchanges no longer fitted: what follows is then a
    record of its own, which begins with what the model was given. Its earlier answers are context and get the weight 0,
    as do answers that were cut or stopped.

    Args:
        session: The conversation.
        num_saved: Answers, from the first on, that are in the file already. They are only context.

    Raises:
        UserError: If there is nothing to save.
    """
    if not session.answered:
        raise UserError("there is nothing to save yet: no message has an answer.")
    if num_saved >= len(session.answered):
        raise UserError("this conversation is saved there already; there are no new answers.")
    made: list[_Record] = []
    for exchange in session.answered[num_saved:]:
        if not made or not made[-1].is_continued_by(exchange):
            made.append(_Record(exchange.given[:-1]))
        made[-1].add(exchange)
    model = {"model": session.model.name, "template": session.model.encoder.template.name}
    return [{"messages": each.messages, "provenance": {**model, "answers": each.made_with}} for each in made]


def append_records(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Add records to a file that is new, empty, or has only such records.

    Args:
        path: The file; created if missing.
        records: As `records_of` makes them.

    Raises:
        UserError: If there is anything else in the file, or it is not a file.
        OSError: If it cannot be read or written.
    """
    if "\0" in os.fspath(path) or (path.exists() and not path.is_file()):
        raise UserError(f"{path}: not a file; choose another name.")
    if path.exists():
        _check_records(path)
    append_lines(path, records)


def _check_records(path: Path) -> None:
    with path.open("rb") as stream:
        for number, line in enumerate(iter(lambda: stream.readline(_LONGEST_LINE), b""), start=1):
            if not _is_record(line):
                raise UserError(
                    f"{path}:{number}: not a conversation that `/save` wrote, so nothing is added to this file; choose "
                    "a new file."
                )


def _is_record(line: bytes) -> bool:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return False
    made_by = row.get("provenance") if isinstance(row, dict) else None
    return isinstance(made_by, dict) and {"model", "template"} <= set(made_by) and isinstance(row.get("messages"), list)


class _Record:
    """A record in the making.

    Args:
        before: What the model was given before the first message.

    Attributes:
        messages: As JSON; answers among `before` have the weight 0.
        made_with: For each answer, how it was made; None for those among `before`.
    """

    def __init__(self, before: Sequence[Message]) -> None:
        self._said = list(before)
        is_answer = [message.role is Role.ASSISTANT for message in before]
        self.messages = [_row(each, 0 if is_one else 1) for each, is_one in zip(before, is_answer, strict=True)]
        self.made_with: list[dict[str, Any] | None] = [None] * sum(is_answer)

    def is_continued_by(self, exchange: Exchange) -> bool:
        """Whether the model was given exactly what the record says so far, and then the message."""
        return list(exchange.given[:-1]) == self._said

    def add(self, exchange: Exchange) -> None:
        """Add a message and its answer."""
        message, answer = exchange.given[-1], Message(Role.ASSISTANT, exchange.answer.text)
        self._said += [message, answer]
        self.messages += [_row(message, 1), _row(answer, 1 if exchange.answer.ended else 0)]
        self.made_with.append(_made_with(exchange))


def _row(message: Message, weight: int) -> dict[str, Any]:
    row: dict[str, Any] = {"role": message.role.value, "content": message.content}
    return row if weight else {**row, "weight": 0}


def _made_with(exchange: Exchange) -> dict[str, Any]:
    """How an answer was sampled, and how it ended."""
    answer, settings = exchange.answer, exchange.settings
    return {
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_new_tokens": settings.max_new_tokens,
        "seed": exchange.seed,
        "end": "stopped" if answer.is_cancelled else "cut" if answer.is_cut else "done",
    }
