"""Text of a conversation in pieces, and the tokens that other trainers make of it.

Trainers disagree on a few tokens around each answer. A `Part` names each of them; a convention
(`data_modules/rendering/conventions.py`) says which parts it trains. Unlike our encoder, other trainers join text in
many ways before they tokenize it and let markers in contents become tokens, so that ids may differ too.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import accumulate, chain

from transformers import PreTrainedTokenizerBase

from data_modules.records.conversation import Conversation, Message, Role
from data_modules.rendering.segments import (
    ASSISTANT_KINDS,
    THINKING_KINDS,
    TOOL_CALL_KINDS,
    Segment,
    SegmentKind,
    kind_of_turn,
)
from data_modules.rendering.templates import AnyTemplate, Template


class Part(StrEnum):
    """What a token is to a trainer."""

    START = "bos token"
    FRAME = "other template text"
    SYSTEM = "system text"
    USER = "user text"
    TOOL_RESULT = "tool result"
    HEADER = "role header"
    HEADER_END = "newline after the header"
    EMPTY_THINKING = "empty thinking"
    THINKING = "thinking"
    TOOL_CALL = "tool call"
    ANSWER = "answer"
    END = "end token"
    AFTER_END = "newline after the end token"
    TEXT = "plain text"


EMITTED = frozenset({Part.THINKING, Part.TOOL_CALL, Part.ANSWER, Part.END})
"""What the model must write."""

SPOKEN = EMITTED | {Part.HEADER_END, Part.EMPTY_THINKING, Part.AFTER_END}
"""What the assistant's message consists of, except its role header."""

EMPTY_THINKING = "<think>\n\n</think>\n\n"

_HEADER = re.compile(r"(?:<[^<>]*>[^<>\n]+<[^<>]*>|<[^<>]*>[^<>\n]*|[^<>\n]+)$")
"""The last line of a prompt, from its last marker on: the role header."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Text of one part.

    Attributes:
        text: The text; not empty.
        part: What it is.
        kind: The kind of its tokens in our metrics.
        turn: Index of its turn.
    """

    text: str
    part: Part
    kind: SegmentKind
    turn: int


@dataclass(slots=True)
class Tokens:
    """Tokens of a conversation, three lists of equal length.

    Attributes:
        ids: Token ids.
        pieces: The pieces that each token overlaps; the first has its first character.
        trained: Whether the trainer has a label for it.
    """

    ids: list[int] = field(default_factory=list)
    pieces: list[tuple[Piece, ...]] = field(default_factory=list)
    trained: list[bool] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(self.ids + other.ids, self.pieces + other.pieces, self.trained + other.trained)

    def first(self, count: int) -> Tokens:
        """The first tokens."""
        return Tokens(self.ids[:count], self.pieces[:count], self.trained[:count])

    def from_place(self, start: int) -> Tokens:
        """The same tokens, all trained from a place on and none before it."""
        return replace(self, trained=[place >= start for place in range(len(self))])

    def all_trained(self, trained: bool) -> Tokens:
        """The same tokens, all trained or none."""
        return replace(self, trained=[trained] * len(self))


def joined(tokens: Iterable[Tokens]) -> Tokens:
    """Concatenate tokens."""
    total = Tokens()
    for part in tokens:
        total = total + part
    return total


def encode(
    pieces: Sequence[Piece],
    tokenizer: PreTrainedTokenizerBase,
    trained: frozenset[Part],
    *,
    special: bool = False,
    markers: bool = True,
) -> Tokens:
    """Encode pieces as one string. A token is trained if any piece that it overlaps is.

    Args:
        pieces: The pieces in order.
        tokenizer: A fast tokenizer.
        trained: Parts to train.
        special: Whether the tokenizer adds its bos (and whatever else it adds to texts).
        markers: Whether markers in the text become tokens.
    """
    pieces = [piece for piece in pieces if piece.text]
    if not pieces:
        return Tokens()
    text = "".join(piece.text for piece in pieces)
    ids, offsets = _with_offsets(text, tokenizer, special=special, markers=markers)
    starts = list(accumulate((len(piece.text) for piece in pieces), initial=0))[:-1]
    touched = []
    for start, stop in offsets:
        first = bisect_right(starts, start) - 1
        span = pieces[first : max(first + 1, bisect_left(starts, stop))]
        touched.append(tuple(span) if stop > start else (Piece("", Part.START, SegmentKind.TEMPLATE, 0),))
    return Tokens(ids, touched, [any(piece.part in trained for piece in span) for span in touched])


def _with_offsets(
    text: str, tokenizer: PreTrainedTokenizerBase, *, special: bool, markers: bool
) -> tuple[list[int], list[tuple[int, int]]]:
    if markers:
        encoded = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True, verbose=False)
        return encoded["input_ids"], encoded["offset_mapping"]
    backend = tokenizer.backend_tokenizer
    backend.encode_special_tokens = True  # state of the tokenizer; each of its own calls resets this
    plain = backend.encode(text, add_special_tokens=False)
    return plain.ids, plain.offsets


def adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer puts its bos before every text."""
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer("").input_ids[:1] == [bos]


def strings_of(template: AnyTemplate, conversation: Conversation) -> list[list[Piece]]:
    """The conversation's text in one string per message: the opening, each prompt with the header of its answer, and
    each answer with what follows it up to the next prompt. Joined, they are the rendered conversation.
    """
    if isinstance(template, Template) and not conversation.is_text:
        return [string for string in _of_patterns(template, conversation) if string]
    return _of_segments(template.render(conversation), str(template.end))


def _fill(pattern: str, message: Message, turn: int, *, kind: SegmentKind, part: Part) -> list[Piece]:
    """Pieces of a pattern such as "User: {user}" for one message."""
    values = {"{system}": message.content, "{user}": message.content, "{context}": message.context}
    return [
        Piece(values[text], part, kind, turn) if text in values else Piece(text, Part.FRAME, SegmentKind.TEMPLATE, turn)
        for text in re.split(r"(\{system\}|\{user\}|\{context\})", pattern)
        if text
    ]


def _of_patterns(template: Template, conversation: Conversation) -> Iterable[list[Piece]]:
    first, last = conversation.turns[0], len(conversation.turns) - 1
    if first.role is Role.SYSTEM:
        yield _fill(template.system, first, 0, kind=SegmentKind.SYSTEM, part=Part.SYSTEM)
    else:
        opening = template.opening_with_context if first.context else template.opening
        yield [Piece(opening, Part.FRAME, SegmentKind.TEMPLATE, 0)] if opening else []
    for index, turn in enumerate(conversation.turns):
        if turn.role is Role.USER:
            pattern = template.user_with_context if turn.context else template.user
            yield _with_header(_fill(pattern, turn, index, kind=SegmentKind.USER, part=Part.USER))
        elif turn.role is Role.ASSISTANT:
            kind = kind_of_turn(turn, final=index == last)
            after = template.closing if index == last else template.between
            yield [
                Piece(turn.content, Part.ANSWER, kind, index),
                Piece(str(template.end), Part.END, kind, index),
                *([Piece(after, Part.AFTER_END, SegmentKind.TEMPLATE, index)] if after else []),
            ]


def _with_header(pieces: list[Piece]) -> list[Piece]:
    """A prompt, with its last fixed text divided into frame, role header and what follows the header."""
    return [*pieces[:-1], *_divided(pieces[-1])] if pieces and pieces[-1].part is Part.FRAME else pieces


def _divided(piece: Piece) -> list[Piece]:
    text, thinking = piece.text, ""
    if text.endswith(EMPTY_THINKING):
        text, thinking = text.removesuffix(EMPTY_THINKING), EMPTY_THINKING
    body = text.rstrip()
    match = _HEADER.search(body)
    start = match.start() if match else len(body)
    parts = (
        (body[:start], Part.FRAME),
        (body[start:], Part.HEADER),
        (text[len(body) :], Part.HEADER_END),
        (thinking, Part.EMPTY_THINKING),
    )
    return [replace(piece, text=text, part=part) for text, part in parts if text]


def _of_segments(segments: list[Segment], end: str) -> list[list[Piece]]:
    """Strings of rendered segments, with new ones before each answer and after what follows it."""
    strings: list[list[Piece]] = [[]]
    for index, segment in enumerate(segments):
        before = segments[index - 1] if index else None
        after = segments[index + 1] if index + 1 < len(segments) else None
        spoken = segment.kind in ASSISTANT_KINDS
        if spoken and before is not None and before.kind not in ASSISTANT_KINDS:
            strings.append([])
        pieces = [Piece(segment.text, _part_of(segment, end), segment.kind, segment.turn)]
        if segment.kind is SegmentKind.TEMPLATE and before is not None and before.kind in ASSISTANT_KINDS:
            rest = segment.text.lstrip()
            lead = segment.text[: len(segment.text) - len(rest)]
            strings[-1] += [replace(pieces[0], text=lead, part=Part.AFTER_END)] if lead else []
            pieces = [replace(pieces[0], text=rest)] if rest else []
            strings += [[]] if rest else []
        if after is not None and after.kind in ASSISTANT_KINDS and not spoken:
            pieces = list(chain.from_iterable(map(_divided, pieces)))
        strings[-1] += pieces
    return [string for string in strings if string]


_PARTS = {
    SegmentKind.SYSTEM: Part.SYSTEM,
    SegmentKind.USER: Part.USER,
    SegmentKind.TEXT: Part.TEXT,
    SegmentKind.TOOL_RESULT: Part.TOOL_RESULT,
    **dict.fromkeys(THINKING_KINDS, Part.THINKING),
    **dict.fromkeys(TOOL_CALL_KINDS, Part.TOOL_CALL),
}


def _part_of(segment: Segment, end: str) -> Part:
    if segment.control and segment.text == end and segment.kind is not SegmentKind.TEMPLATE:
        return Part.END
    if segment.kind is SegmentKind.TEMPLATE:
        return Part.FRAME
    return _PARTS.get(segment.kind, Part.ANSWER)
