"""Segments: the parts of a rendered conversation, each of one kind, which every token takes with it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class SegmentKind(IntEnum):
    """What a token is. Loss masks are weights on these, metrics are sums over these."""

    PADDING = 0
    SYSTEM = 1
    USER = 2
    TEMPLATE = 3
    ANSWER = 4
    """An answer that is not the last of its conversation, with its end token."""
    FINAL_ANSWER = 5
    TEXT = 6


ANSWER_KINDS = (SegmentKind.ANSWER, SegmentKind.FINAL_ANSWER)


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of text that is encoded by itself.

    Attributes:
        text: The text.
        kind: What its tokens are.
        turn: Index of the turn it belongs to; fixed text belongs to the turn it frames.
        control: Whether markers in the text are tokens. Never so for what users and models wrote.
        context: Whether truncation takes it first.
    """

    text: str
    kind: SegmentKind
    turn: int
    control: bool = False
    context: bool = False
