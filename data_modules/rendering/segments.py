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
    """An answer that its record marks as not to be trained, with its end token. No mask supervises it."""


ANSWER_KINDS = (SegmentKind.ANSWER, SegmentKind.FINAL_ANSWER)
"""Answers to train on."""

ASSISTANT_KINDS = (*ANSWER_KINDS, SegmentKind.CONTEXT_ANSWER)
"""Everything the assistant says."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of text that is encoded on its own.

    Attributes:
        text: The text.
        kind: The kind of its tokens.
        turn: Index of the turn it belongs to; fixed text belongs to the turn it frames.
        control: Whether markers in the text become tokens. Never for text written by users and models.
        context: Whether it is truncated first.
    """

    text: str
    kind: SegmentKind
    turn: int
    control: bool = False
    context: bool = False


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
    return SegmentKind.SYSTEM if turn.role is Role.SYSTEM else SegmentKind.USER


def end_token(text: str, kind: SegmentKind, turn: int) -> Segment:
    """The token that ends an answer or a document; it has the kind of what it ends."""
    return Segment(text, kind, turn, control=True)


def document(text: str, end: str) -> list[Segment]:
    """A plain document and its end token."""
    return [Segment(text, SegmentKind.TEXT, 0), end_token(end, SegmentKind.TEXT, 0)]


def fixed_text(text: str, turn: int) -> list[Segment]:
    """Text of the template, as a list without empty segments."""
    return [Segment(text, SegmentKind.TEMPLATE, turn, control=True)] if text else []
