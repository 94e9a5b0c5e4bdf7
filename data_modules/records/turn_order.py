"""What is done with turns that are out of order: several messages of one role in a row, an answer at the start."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from data_modules.errors import UserError
from data_modules.records.conversation import Message, Role

Consecutive = Literal["error", "merge"]
FirstAnswer = Literal["error", "drop"]

EMPTY_SYSTEM = "empty system messages dropped"


@dataclass(frozen=True, slots=True)
class TurnRules:
    """What is done with turns that are out of order.

    Attributes:
        consecutive: Whether several messages of one role in a row are an error, or joined with a blank line.
        first_answer: Whether a conversation that begins with an answer is an error, or loses this answer.
    """

    consecutive: Consecutive = "error"
    first_answer: FirstAnswer = "error"


def arranged(turns: Sequence[Message], rules: TurnRules) -> tuple[tuple[Message, ...], Counter[str]]:
    """Put turns in order as far as the rules allow; empty system messages are always dropped.

    Returns:
        The turns, and how often each thing was done.

    Raises:
        UserError: If messages with different weights would be joined.
    """
    kept = [turn for turn in turns if turn.role is not Role.SYSTEM or turn.content.strip()]
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
        if not merged or merged[-1].role is not turn.role or turn.role is Role.TEXT:
            merged.append(turn)
            continue
        before = merged[-1]
        if before.is_trained != turn.is_trained:
            raise UserError(
                f"turn {number} ({turn.role}) cannot be joined with the one before: only one of them has the weight 0. "
                "Give both the same weight, or set `--data.on_invalid drop`."
            )
        merged[-1] = replace(
            before, content=_joined(before.content, turn.content), context=_joined(before.context, turn.context)
        )
    return merged


def _joined(*texts: str) -> str:
    return "\n\n".join(filter(None, texts))
