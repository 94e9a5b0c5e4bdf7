"""Thinking: what an assistant writes before its answer. It is a field of its message, or a block in the content."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from data_modules.errors import UserError
from data_modules.records.conversation import Message, Role
from data_modules.records.field_values import is_given, text

Thinking = Literal["train", "mask", "strip"]

OPENING, CLOSING = "<think>\n", "\n</think>\n\n"
"""How our templates write thinking. Source: Qwen3's and DeepSeek-R1's answers."""

FIELDS = ("reasoning_content", "reasoning", "thinking")
"""Fields of an assistant's message with its thinking: DeepSeek's and Qwen's, OpenRouter's, gpt-oss's."""

_MARKER = "<think>"
_NEAR = 40
"""A marker within so many characters, after white space, is at the start."""
_BLOCK = re.compile(r"<think>\n(.*?)\n</think>\n\n(?=.)", re.DOTALL)
_ANY_BLOCK = re.compile(r"\s*<think>(.*?)</think>\s*", re.DOTALL)


def thinking_of(item: Mapping[str, Any], role: Role, place: str) -> str:
    """The thinking in a field of a message; empty if there is none.

    Line breaks around it are dropped, as in Qwen's template: templates and servers add and remove them.

    Args:
        item: The message.
        role: Its role.
        place: Where it is, for error messages.

    Raises:
        UserError: If it is not a string, another role thinks, or two fields differ.
    """
    names = [name for name in FIELDS if is_given(item.get(name))]
    if not names:
        return ""
    if role is not Role.ASSISTANT:
        raise UserError(
            f"{place}.{names[0]} is given, but the message is the {role}'s; only the assistant's messages have "
            "thinking. Remove the field, or set `--data.on_invalid drop`."
        )
    found = {text(item, name, place=place).strip("\n") for name in names}
    if len(found) > 1:
        raise UserError(f"{place}: {' and '.join(names)} differ; keep one of them, or set `--data.on_invalid drop`.")
    return found.pop()


def may_think(turn: Message) -> bool:
    """Whether an assistant's message has thinking, or may have it in its content. A quick test that few others pass."""
    return bool(turn.thinking) or _MARKER in turn.content[:_NEAR]


def arranged_thinking(turn: Message, how: Thinking, number: int) -> Message:
    """A message with its thinking trained, masked or left out.

    A block at the start of the content counts as thinking if templates write it back exactly as it is:
    "<think>\\n...\\n</think>\\n\\n...". With `mask` and `strip`, any block at the start does.

    Args:
        turn: A message that `may_think`.
        how: What is done with thinking.
        number: The turn's, for error messages.

    Raises:
        UserError: If a message has thinking in a field and in its content, or a block does not end.
    """
    if turn.content.lstrip().startswith(_MARKER):
        turn = _with_block_split_off(turn, how, number)
    if not turn.thinking or how == "train":
        return turn
    return replace(turn, thinking="") if how == "strip" else replace(turn, is_thinking_trained=False)


def with_thinking(turn: Message) -> str:
    """The content after its thinking, for templates that treat both as one text."""
    return f"{OPENING}{turn.thinking}{CLOSING}{turn.content}" if turn.thinking else turn.content


def without_thinking(text: str) -> str:
    """A text as models emit it, without the block of thinking at its start and the white space around it."""
    block = _ANY_BLOCK.match(text)
    return text[block.end() :] if block else text


def _with_block_split_off(turn: Message, how: Thinking, number: int) -> Message:
    content = turn.content
    if turn.thinking:
        raise UserError(
            f"turn {number} (assistant) has thinking both in a field and at the start of its content; expected one "
            "of the two. Remove one, or set `--data.on_invalid drop`."
        )
    block = _BLOCK.match(content)
    if block and block[1] == block[1].strip("\n") and block[1].strip():
        return replace(turn, thinking=block[1], content=content[block.end() :])
    if how == "train":
        return turn  # trained as part of the answer
    block = _ANY_BLOCK.match(content)
    if block is None:
        raise UserError(
            f"turn {number} (assistant) begins with <think>, but there is no </think>, so `--data.thinking {how}` does "
            "not know where the thinking ends. Complete the answer, or set `--data.on_invalid drop`."
        )
    return replace(turn, thinking=block[1].strip(), content=content[block.end() :])
