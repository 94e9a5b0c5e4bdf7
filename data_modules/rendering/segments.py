"""Segments: the parts of a rendered conversation. Every token has the kind of its segment."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


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
