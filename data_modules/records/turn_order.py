"""What is done with turns that are out of order (several messages of one role in a row, an answer at the start), and
with the assistant's thinking."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from data_modules.errors import UserError
from data_modules.records.conversation import Message, Role
from data_modules.records.thinking import Thinking, arranged_thinking, may_think

Consecutive = Literal["error", "merge"]
FirstAnswer = Literal["error", "drop"]

EMPTY_SYSTEM = "empty system messages dropped"


@dataclass(frozen=True, slots=True)
class TurnRules:
    """What is done with turns.

    Attributes:
        consecutive: Whether several messages of one role in a row are an error, or joined with a blank line.
        first_answer: Whether a conversation that begins with an answer is an error, or loses this answer.
        thinking: Whether thinking is trained, only context for its answer, or left out.
    """

    consecutive: Consecutive = "error"
    first_answer: FirstAnswer = "error"
    thinking: Thinking = "train"


def arranged(turns: Sequence[Message], rules: TurnRules) -> tuple[tuple[Message, ...], Counter[str]]:
    """Put turns in order as far as the rules allow; empty system messages are always dropped.

    Returns:
        The turns, and how often each thing was done.

    Raises:
        UserError: If messages with different weights would be joined, or it is unclear what is thinking.
    """
    kept = [
        arranged_thinking(turn, rules.thinking, number) if turn.role is Role.ASSISTANT and may_think(turn) else turn
        for number, turn in enumerate(turns, start=1)
        if turn.role is not Role.SYSTEM or turn.content.strip()
    ]
    done = {EMPTY_SYSTEM: len(turns) - len(kept)}
    if rules.consecutive == "merge":
        merged = _merged(kept)
        done["messages joined with the one before"] = len(kept) - len(merged)
        kept = merged
    first = next((index for index, turn in enumerate(kept) if turn.role is not Role.SYSTEM), None)
    if rules.first_answer == "drop" and first is not None and kept[first].role is Role.ASSISTANT:
        del kept[first]
        done["answers at the start dropped"] = 1
    return tuple(kept), Counter({what: count for what, count in done.items() if count})


def _merged(turns: Sequence[Message]) -> list[Message]:
    merged: list[Message] = []
    for number, turn in enumerate(turns, start=1):
        if not merged or merged[-1].role is not turn.role or turn.role in (Role.TEXT, Role.TOOL):
            merged.append(turn)
            continue
        before = merged[-1]
        if fault := _fault(before, turn):
            raise UserError(
                f"turn {number} ({turn.role}) cannot be joined with the one before: {fault}, or set "
                "`--data.on_invalid drop`."
            )
        merged[-1] = replace(
            before,
            content=_joined(before.content, turn.content),
            context=_joined(before.context, turn.context),
            tool_calls=before.tool_calls + turn.tool_calls,
        )
    return merged


def _fault(before: Message, turn: Message) -> str:
    """Why two messages of one role cannot be one, and what to do; empty if they can."""
    if before.weight != turn.weight:
        return "their weights differ. Give both the same weight"
    if turn.thinking:
        return "it has thinking, which would be in the middle of an answer. Move it to the first"
    if before.tool_calls and turn.content:
        return "it has text after a tool call. Put the text first"
    return ""


def _joined(*texts: str) -> str:
    return "\n\n".join(filter(None, texts))
