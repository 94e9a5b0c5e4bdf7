"""The fixed text that a chat template writes around the contents of a conversation, for each shape of conversation.

Conversations have the same shape if they differ only in their contents. A shape is rendered once, with marks for the
contents, and cut at the marks and at the places where generation starts and ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from data_modules.errors import UserError
from data_modules.records.conversation import Conversation, Message, Role
from data_modules.rendering.emission import MARK, Emission, End, Unclear, emission, mark

Part = Literal["thinking", "content", "context"]
Stage = Literal["thinking", "content", "calls"]

Slot = tuple[int, Part]
"""A turn, and which of its texts."""

Pieces = tuple[str, ...]
"""Fixed text and slots by turns: text, index of a slot, text, index, ..., text."""

_CHECKED_FIRST, _CHECKED_LAST = 24, 8
"""What these answers are preceded by is always checked; of the others, only those with new fixed text around them."""


@dataclass(frozen=True, slots=True)
class Item:
    """A piece of a rendered conversation.

    Attributes:
        text: Fixed text; empty if the piece is a slot.
        slot: The slot, if it is one.
        turn: The turn it belongs to.
        is_emitted: Whether the model emits it.
        stage: Where in the turn it is: in its thinking, its content with everything else, or its tool calls.
    """

    text: str
    slot: Slot | None
    turn: int
    is_emitted: bool
    stage: Stage = "content"


@dataclass(frozen=True, slots=True)
class Shape:
    """How conversations of one shape are rendered.

    Attributes:
        slots: The texts of the conversation, in the order of its turns.
        prompt: The prompt of the last answer, or the whole conversation if it has none.
        answer: What the template writes after the last content of the prompt; None if there is no answer.
        items: The prompt, what the model emits, and what follows.
        emitted: The turns that the model emits at this place after exactly this prompt. Other answers are part of the
            prompt: the template renders them differently once the conversation goes on.
    """

    slots: tuple[Slot, ...]
    prompt: Pieces
    answer: Pieces | None
    items: tuple[Item, ...]
    emitted: frozenset[int]


def slots_of(conversation: Conversation) -> tuple[Slot, ...]:
    """The texts of a conversation that a template renders."""
    parts: tuple[Part, ...] = ("thinking", "content", "context")
    return tuple(
        (index, part) for index, turn in enumerate(conversation.turns) for part in parts if getattr(turn, part)
    )


def cut(conversation: Conversation, render: Callable[[Conversation], str], end: End) -> Shape:
    """Find out how conversations of this shape are rendered.

    Args:
        conversation: One of them.
        render: Renders a conversation; with the generation prompt if it has no last answer.
        end: How answers end.

    Raises:
        Unclear: If the template drops or repeats contents, or it is not clear what the model must emit.
        UserError: If the template rejects the conversation.
    """
    slots = slots_of(conversation)
    marked = marked_conversation(conversation, slots)
    prompt = render(marked.prompt())
    _check_contents(marked, prompt, slots)
    final = _emission(marked, prompt, render, end) if marked.is_answered else None
    text = prompt + (final.text if final else "")
    _check_tools(marked, text, render)
    spans = _earlier_spans(marked, text, slots, render, end)
    if final:
        spans.append((len(prompt), len(text), len(marked.turns) - 1))
    return Shape(
        slots,
        prompt=tuple(MARK.split(prompt)),
        answer=tuple(MARK.split(final.rendered)) if final else None,
        items=_items(text + (final.closing if final else ""), spans, slots, marked),
        emitted=frozenset(turn for *_, turn in spans),
    )


def _check_contents(marked: Conversation, prompt: str, slots: tuple[Slot, ...]) -> None:
    """Check that a prompt has every content once. Templates may leave out the thinking of earlier answers."""
    found = sorted(map(int, MARK.findall(prompt)))
    turns = len(marked.prompt().turns)
    given = [
        index for index, (turn, part) in enumerate(slots) if turn < turns and (part != "thinking" or index in found)
    ]
    if found != given:
        raise Unclear("it drops or repeats turns")


def _check_tools(marked: Conversation, text: str, render: Callable[[Conversation], str]) -> None:
    """Check that tools and calls are rendered."""
    calls = [call for turn in marked.turns for call in turn.tool_calls]
    if not all(call.name in text for call in calls):
        raise Unclear("it does not render tool calls")
    if marked.tools and render(marked.prompt()) == render(replace(marked.prompt(), tools=())):
        raise Unclear("it does not render the tools")


def _emission(answered: Conversation, prompt: str, render: Callable[[Conversation], str], end: End) -> Emission:
    """What the model emits for the last, marked message of a conversation."""
    last = answered.turns[-1]
    found = emission(prompt, render(answered), end, thinking=last.thinking, has_calls=bool(last.tool_calls))
    if last.content not in found.text:
        raise Unclear("it drops the text of an answer with tool calls")
    return found


def marked_conversation(conversation: Conversation, slots: tuple[Slot, ...]) -> Conversation:
    """The conversation with a mark for each of its texts."""
    turns = list(conversation.turns)
    for index, (turn, part) in enumerate(slots):
        marked: dict[str, str] = {part: mark(index)}
        turns[turn] = replace(turns[turn], **marked)  # type: ignore[arg-type]
    return replace(conversation, turns=tuple(turns))


_Span = tuple[int, int, int]
"""Start and end of what the model emits, in characters, and its turn."""


def _earlier_spans(
    marked: Conversation, text: str, slots: tuple[Slot, ...], render: Callable[[Conversation], str], end: End
) -> list[_Span]:
    """What the model emits at earlier turns, where the text has exactly its prompt and what it emits.

    A check renders the conversation up to there, so in long conversations only some answers are checked; the others are
    like one with the same text around it.
    """
    places = {int(match[1]): match.span() for match in MARK.finditer(text)}
    before_last = marked.prompt().turns
    turns = [index for index, turn in enumerate(before_last) if turn.role is Role.ASSISTANT]
    rich = [index for index in turns if before_last[index].thinking or before_last[index].tool_calls]
    plain = [(slots.index((turn, "content")), turn) for turn in turns if turn not in rich]
    found = [_span(marked.turns[: turn + 1], marked, text, render, end) for turn in rich]
    spans = [(*span, turn) for span, turn in zip(found, rich, strict=True) if span]
    return sorted(spans + _spans_of_plain(marked, text, plain, places, render, end))


def _spans_of_plain(
    marked: Conversation,
    text: str,
    answers: list[tuple[int, int]],
    places: dict[int, tuple[int, int]],
    render: Callable[[Conversation], str],
    end: End,
) -> list[_Span]:
    """The same for answers without thinking and calls: slot and turn of each."""
    ends = [places[index][1] for index, _ in answers]
    known: dict[tuple[str, ...], tuple[int, int] | None] = {}
    spans = []
    for number, (index, turn) in enumerate(answers):
        start, stop = places[index]
        around = tuple(MARK.split(text[ends[number - 1] if number else 0 : _next_mark(text, stop)]))[0::2]
        is_checked = number < _CHECKED_FIRST or number >= len(answers) - _CHECKED_LAST
        if is_checked or around not in known:
            span = _span(marked.turns[: turn + 1], marked, text, render, end)
            known[around] = (start - span[0], span[1] - stop) if span else None
        margins = known[around]
        if margins is not None:
            spans.append((start - margins[0], stop + margins[1], turn))
    return spans


def _next_mark(text: str, start: int) -> int:
    following = MARK.search(text, start)
    return following.start() if following else len(text)


def _span(
    turns: tuple[Message, ...],
    marked: Conversation,
    text: str,
    render: Callable[[Conversation], str],
    end: End,
) -> tuple[int, int] | None:
    """Where the model emits an earlier answer; None if it would emit something else there."""
    answered = replace(marked, turns=turns)
    try:
        prompt = render(answered.prompt())
        expected = _emission(answered, prompt, render, end)
    except (Unclear, UserError):
        return None
    if not text.startswith(prompt + expected.text):
        return None
    return len(prompt), len(prompt) + len(expected.text)


def _items(text: str, spans: list[_Span], slots: tuple[Slot, ...], marked: Conversation) -> tuple[Item, ...]:
    """Cut text at its marks and at the borders of the spans."""
    marks = {match.start(): match for match in MARK.finditer(text)}
    borders = {0, len(text), *marks, *(match.end() for match in marks.values())}
    borders |= {place for start, stop, _ in spans for place in (start, stop)}
    items, turn = [], 0
    for start, stop in pairwise(sorted(borders)):
        slot = slots[int(marks[start][1])] if start in marks else None
        emitted = next((owner for a, b, owner in spans if a <= start < b), None)
        turn = slot[0] if slot else turn if emitted is None else emitted
        stage = _stage(marked.turns[turn], text, start) if emitted is not None else "content"
        items.append(Item("" if slot else text[start:stop], slot, turn, emitted is not None, stage))
    return tuple(items)


def _stage(turn: Message, text: str, start: int) -> Stage:
    """Which part of an emitted message a place is in."""
    content = text.find(turn.content) if turn.content else -1
    if turn.thinking and (start < content or (content < 0 and start <= text.find(turn.thinking))):
        return "thinking"
    is_after = start > content if turn.content else True
    return "calls" if turn.tool_calls and is_after else "content"
