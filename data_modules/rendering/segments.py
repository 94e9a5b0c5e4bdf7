"""Segments: the parts of a rendered conversation. Every token has the kind of its segment."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from data_modules.records.conversation import Message, Role


class SegmentKind(IntEnum):
    """The kind of a token. Loss masks assign weights to kinds; metrics are sums over kinds."""

    PADDING = 0
    SYSTEM = 1
    USER = 2
    TEMPLATE = 3
    ANSWER = 4
    """Any answer but the last of its conversation, with its end token."""
    FINAL_ANSWER = 5
    TEXT = 6
    CONTEXT_ANSWER = 7
    """What the assistant says without being trained on it, with its end token: a message of weight 0. No mask
    supervises it."""
    THINKING = 8
    """What the model writes before any answer but the last, with its markers."""
    TOOL_CALL = 9
    """The tool calls of any assistant message but the last, with their markers."""
    TOOL_RESULT = 10
    """What a tool returns. The model reads it."""
    FINAL_THINKING = 11
    """The thinking of the last assistant message."""
    FINAL_TOOL_CALL = 12
    """The tool calls of a conversation that ends with them."""


ANSWER_KINDS = (SegmentKind.ANSWER, SegmentKind.FINAL_ANSWER)
"""The text of answers to train on."""

THINKING_KINDS = (SegmentKind.THINKING, SegmentKind.FINAL_THINKING)
"""Thinking to train on."""

TOOL_CALL_KINDS = (SegmentKind.TOOL_CALL, SegmentKind.FINAL_TOOL_CALL)
"""Tool calls to train on."""

FINAL_KINDS = (SegmentKind.FINAL_ANSWER, SegmentKind.FINAL_THINKING, SegmentKind.FINAL_TOOL_CALL)
"""The last assistant message of a conversation, if it is to be trained on: one generation."""

TRAINED_KINDS = (*ANSWER_KINDS, *THINKING_KINDS, *TOOL_CALL_KINDS)
"""What the model emits and is trained on."""

ASSISTANT_KINDS = (*TRAINED_KINDS, SegmentKind.CONTEXT_ANSWER)
"""Everything the model emits, trained or not. Tool results are not emitted."""

PROMPT_KINDS = (SegmentKind.SYSTEM, SegmentKind.USER, SegmentKind.TEMPLATE, SegmentKind.TOOL_RESULT)
"""What the model reads of a conversation."""

RARE_KINDS = (SegmentKind.CONTEXT_ANSWER, *THINKING_KINDS, *TOOL_CALL_KINDS, SegmentKind.TOOL_RESULT)
"""Kinds that most data does not have. Reports leave them out where they have no tokens."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of text whose tokens are of one kind.

    Attributes:
        text: The text.
        kind: The kind of its tokens.
        turn: Index of the turn it belongs to; fixed text belongs to the turn it frames.
        control: Whether markers in the text become tokens. Never for text written by users and models.
        context: Whether it is truncated first.
        weight: How much the message it belongs to counts in the loss. The encoder sets it; templates do not.
        is_read: Whether the model only reads it, as part of a prompt, although the assistant says it: a template may
            render an earlier answer differently from how it was emitted.
    """

    text: str
    kind: SegmentKind
    turn: int
    control: bool = False
    context: bool = False
    weight: float = 1.0
    is_read: bool = False


def kind_of_turn(turn: Message, *, final: bool) -> SegmentKind:
    """The kind of a turn's content.

    Args:
        turn: Not a document.
        final: Whether it is the last of its conversation.
    """
    if turn.role is Role.ASSISTANT:
        if not turn.is_trained:
            return SegmentKind.CONTEXT_ANSWER
        return SegmentKind.FINAL_ANSWER if final else SegmentKind.ANSWER
    if turn.role is Role.TOOL:
        return SegmentKind.TOOL_RESULT
    return SegmentKind.SYSTEM if turn.role is Role.SYSTEM else SegmentKind.USER


def kind_of_thinking(turn: Message, *, final: bool) -> SegmentKind:
    """The kind of an assistant's thinking, with its markers.

    Args:
        turn: An assistant's message.
        final: Whether it is the last of its conversation.
    """
    if not (turn.is_trained and turn.is_thinking_trained):
        return SegmentKind.CONTEXT_ANSWER
    return SegmentKind.FINAL_THINKING if final else SegmentKind.THINKING


def kind_of_calls(turn: Message, *, final: bool) -> SegmentKind:
    """The kind of an assistant's tool calls, with their markers and the end token after them.

    Args:
        turn: An assistant's message.
        final: Whether it is the last of its conversation.
    """
    if not turn.is_trained:
        return SegmentKind.CONTEXT_ANSWER
    return SegmentKind.FINAL_TOOL_CALL if final else SegmentKind.TOOL_CALL


def end_token(text: str, kind: SegmentKind, turn: int) -> Segment:
    """The token that ends an answer or a document; it has the kind of what it ends."""
    return Segment(text, kind, turn, control=True)


def document(text: str, end: str) -> list[Segment]:
    """A plain document and its end token."""
    return [Segment(text, SegmentKind.TEXT, 0), end_token(end, SegmentKind.TEXT, 0)]


def fixed_text(text: str, turn: int) -> list[Segment]:
    """Text of the template, as a list without empty segments."""
    return [Segment(text, SegmentKind.TEMPLATE, turn, control=True)] if text else []
