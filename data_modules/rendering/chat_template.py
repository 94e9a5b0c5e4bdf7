"""The tokenizer's own chat template, a Jinja program, split into segments of text, each of one kind."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from transformers import PreTrainedTokenizerBase

from data_modules.errors import UserError
from data_modules.records.conversation import Conversation, Message, Role
from data_modules.rendering.segments import (
    ASSISTANT_KINDS,
    Segment,
    SegmentKind,
    end_token,
    fixed_text,
    kind_of_turn,
)
from data_modules.wording import reason_of

INPUT_KEY = "input"
"""The field for a user message's context in exported chat templates."""

_CHECKED_FIRST, _CHECKED_LAST = 24, 8
"""The prompts of these answers are always checked; of the others, only those preceded by new fixed text."""


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """The tokenizer's own chat template, split into segments.

    Each shape of conversation is rendered once with placeholders for the contents; the text between them is TEMPLATE.
    Every conversation is then rendered in full and refused unless it equals its segments joined.

    Attributes:
        tokenizer: Has the Jinja template.
        end: The special token that follows an answer.
        has_input: Whether a user message may have its context in a separate field, `input`. Otherwise the context
            follows the message on a new line.
    """

    tokenizer: PreTrainedTokenizerBase
    end: str
    has_input: bool = False
    name: str = "tokenizer"
    _shapes: dict[tuple[tuple[Role, bool], ...], list[str]] = field(default_factory=dict, repr=False, compare=False)

    def render(self, conversation: Conversation) -> list[Segment]:
        """Render a conversation as segments.

        Raises:
            UserError: If the template rejects the conversation, or alters the contents so that no exact split exists.
        """
        if conversation.is_text:
            return [
                Segment(conversation.turns[0].content, SegmentKind.TEXT, 0),
                end_token(self.end, SegmentKind.TEXT, 0),
            ]
        contents, literals = _contents(conversation), self._literals(conversation)
        rendered = self._apply(conversation)
        if rendered != _join(literals, contents):
            # many templates strip the contents; segments of the stripped text are then exact
            contents = [replace(part, text=part.text.strip()) for part in contents]
            if rendered != _join(literals, contents):
                raise self._refusal(conversation, "it does not render turns unchanged between fixed markers")
        segments = list(fixed_text(literals[0], 0))
        for part, literal in zip(contents, literals[1:], strict=True):
            segments += [part] if part.text else []
            if part.kind in ASSISTANT_KINDS:
                segments.append(end_token(self.end, part.kind, part.turn))
                literal = literal.removeprefix(self.end)
            segments += fixed_text(literal, part.turn)
        return segments

    def _literals(self, conversation: Conversation) -> list[str]:
        """The fixed text around the contents of a conversation: one more piece than there are contents."""
        shape = tuple((turn.role, bool(turn.context)) for turn in conversation.turns)
        if shape not in self._shapes:
            self._shapes[shape] = self._cut(conversation)
        return self._shapes[shape]

    def _cut(self, conversation: Conversation) -> list[str]:
        marks = [f"\ue000{index}\ue001" for index in range(2 * len(conversation.turns))]
        turns = tuple(
            replace(turn, content=marks[2 * i], context=marks[2 * i + 1] if turn.context else "")
            for i, turn in enumerate(conversation.turns)
        )
        marked = replace(conversation, turns=turns)
        rendered = self._apply(marked)
        present = [part.text for part in _contents(marked)]
        if re.findall("\ue000\\d+\ue001", rendered) != present:
            raise self._refusal(conversation, "it drops, repeats or reorders turns")
        literals = re.split("\ue000\\d+\ue001", rendered)
        for part, literal in zip(_contents(marked), literals[1:], strict=True):
            if part.kind in ASSISTANT_KINDS and not literal.startswith(self.end):
                raise self._refusal(conversation, f"an answer is not followed by its end token {self.end!r}")
        self._check_prompts(marked, rendered, literals)
        return literals

    def _check_prompts(self, marked: Conversation, rendered: str, literals: list[str]) -> None:
        """Check that the text trained before each answer is the prompt that inference would send.

        A check renders the whole conversation, so in long conversations only some answers are checked.
        """
        for index in _answers_to_check(marked, literals):
            prompt = self._apply(replace(marked, turns=marked.turns[:index]))
            if rendered[: rendered.index(marked.turns[index].content)] != prompt:
                raise self._refusal(marked, f"its prompt for turn {index + 1} differs from the text trained before it")

    def _apply(self, conversation: Conversation) -> str:
        from jinja2.exceptions import TemplateError

        try:
            text = self.tokenizer.apply_chat_template(
                _messages(conversation, has_input=self.has_input),
                tokenize=False,
                add_generation_prompt=not conversation.is_answered,
            )
        except TemplateError as error:
            raise UserError(
                f"{conversation.origin}: the tokenizer's own chat template rejects this conversation: {error}. Use "
                "`--data.template chatml` (or alpaca, plain), or set `--data.on_invalid drop`."
            ) from None
        except Exception as error:  # a template is a program and can fail in any way, such as dividing by zero
            raise UserError(
                f"{conversation.origin}: the tokenizer's own chat template fails on this conversation "
                f"({type(error).__name__}: {reason_of(error)}). Correct `chat_template` in the tokenizer's files, or "
                "use `--data.template chatml` (or alpaca, plain)."
            ) from error
        assert isinstance(text, str)
        return text

    def _refusal(self, conversation: Conversation, why: str) -> UserError:
        return UserError(
            f"{conversation.origin}: the tokenizer's own chat template cannot be split into segments exactly: {why}. "
            "Use `--data.template chatml` (or alpaca, plain)."
        )


def own_template(tokenizer: PreTrainedTokenizerBase) -> ChatTemplate:
    """The tokenizer's own chat template, with the end token found in it.

    Raises:
        UserError: If the tokenizer has no chat template, or none that ends answers with a special token.
    """
    if not tokenizer.chat_template:
        raise UserError("the tokenizer has no chat template; use `--data.template plain` (or alpaca, chatml).")
    user, answer = (
        Message(Role.USER, "\ue0000\ue001", context="\ue0002\ue001"),
        Message(Role.ASSISTANT, "\ue0001\ue001"),
    )
    probe = Conversation((user, answer), "the template")
    draft = ChatTemplate(tokenizer, end="", has_input=True)
    rendered = draft._apply(probe)
    after = rendered.partition(answer.content)[2]
    specials = sorted(map(str, tokenizer.get_added_vocab()), key=len, reverse=True)
    end = next((token for token in specials if after.startswith(token)), None)
    if end is None:
        raise draft._refusal(probe, f"an answer is followed by {after[:20]!r}, which is not a special token")
    return ChatTemplate(tokenizer, end=end, has_input=user.context in rendered)


def _messages(conversation: Conversation, *, has_input: bool) -> list[dict[str, str]]:
    messages = []
    for turn in conversation.turns:
        content = f"{turn.content}\n{turn.context}" if turn.context and not has_input else turn.content
        given = {INPUT_KEY: turn.context} if turn.context and has_input else {}
        messages.append({"role": turn.role.value, "content": content, **given})
    return messages


def _contents(conversation: Conversation) -> list[Segment]:
    """The contents of the turns in order; context follows its message."""
    last = len(conversation.turns) - 1
    parts = []
    for index, turn in enumerate(conversation.turns):
        parts.append(Segment(turn.content, kind_of_turn(turn, final=index == last), index))
        if turn.context:
            parts.append(replace(Segment(turn.context, SegmentKind.USER, index), context=True))
    return parts


def _answers_to_check(conversation: Conversation, literals: list[str]) -> list[int]:
    """The turns of the first and last answers, and of every answer whose exchange has new fixed text."""
    chosen, seen, start = [], set(), 0
    answers = [(place, part.turn) for place, part in enumerate(_contents(conversation)) if part.kind in ASSISTANT_KINDS]
    for number, (place, turn) in enumerate(answers):
        exchange = tuple(literals[start : place + 1])  # the fixed text before each of its contents
        start = place + 1
        if number < _CHECKED_FIRST or number >= len(answers) - _CHECKED_LAST or exchange not in seen:
            chosen.append(turn)
            seen.add(exchange)
    return chosen


def _join(literals: list[str], contents: list[Segment]) -> str:
    pairs = zip(literals[1:], contents, strict=True)
    return literals[0] + "".join(part.text + literal for literal, part in pairs)
