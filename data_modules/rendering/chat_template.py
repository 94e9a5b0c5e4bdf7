"""The tokenizer's own chat template, a Jinja program, split into segments of text, each of one kind."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from transformers import PreTrainedTokenizerBase

from data_modules.errors import UserError
from data_modules.records.conversation import Conversation, Message, Role, ToolCall
from data_modules.records.thinking import with_thinking
from data_modules.rendering.chat_shape import Pieces, Shape, Slot, cut, marked_conversation
from data_modules.rendering.emission import MARK, End, Unclear, find_end, mark
from data_modules.rendering.generation_marks import has_marks, marked_turns
from data_modules.rendering.jinja_source import INPUT_KEY, ChatOptions, joining_input, source_of, with_options
from data_modules.rendering.segments import (
    Segment,
    SegmentKind,
    document,
    end_token,
    fixed_text,
    kind_of_calls,
    kind_of_thinking,
    kind_of_turn,
)
from data_modules.wording import reason_of

_KINDS = {"thinking": kind_of_thinking, "content": kind_of_turn, "calls": kind_of_calls}

_ADVICE = "Use `--data.template chatml` (or alpaca, plain)."


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """The tokenizer's own chat template.

    What is trained is a prompt, exactly as `apply_chat_template(messages, add_generation_prompt=True)` renders it, and
    what the model must emit after it, as `apply_chat_template` renders the conversation with the answer.

    Attributes:
        tokenizer: Its special tokens are used by the template.
        source: The Jinja program.
        ending: How answers end.
        has_input: Whether a user message may have its context in a separate field, `input`. Otherwise the context
            follows the message on a new line.
        renders_thinking: Whether thinking is a field of a message. Otherwise it is part of the content.
        closes_thinking: Whether the prompt ends with a block of thinking, so that the answer cannot have any.
        tool_source: The Jinja program for records with tools, if there is another one.
    """

    tokenizer: PreTrainedTokenizerBase
    source: str = field(repr=False)
    ending: End
    has_input: bool = False
    renders_thinking: bool = False
    closes_thinking: bool = False
    tool_source: str | None = field(default=None, repr=False)
    name: str = "tokenizer"
    _shapes: dict[tuple[Any, ...], Shape] = field(default_factory=dict, repr=False, compare=False)

    @property
    def end(self) -> str:
        """The special token that ends an answer."""
        return self.ending.token

    @property
    def layout(self) -> str:
        """Everything that the rendered text depends on, besides the conversation."""
        return self.source if self.tool_source is None else repr((self.source, self.tool_source))

    @property
    def exported(self) -> str:
        """The Jinja program for an exported tokenizer: it renders the trained text of every record."""
        return self._for_export(self.source)

    @property
    def exported_for_tools(self) -> str | None:
        """The same for records with tools, if there is another program for them."""
        return None if self.tool_source is None else self._for_export(self.tool_source)

    def _for_export(self, source: str) -> str:
        return source if self.has_input else joining_input(source)

    def render(self, conversation: Conversation) -> list[Segment]:
        """Render a conversation as segments.

        Raises:
            UserError: If the template rejects the conversation, or alters the contents so that no exact split exists.
        """
        if conversation.is_text:
            return document(conversation.turns[0].content, self.end)
        self._check_markers(conversation)
        self._check_thinking(conversation)
        try:
            if not self.renders_thinking:
                conversation = _with_thinking_inside(conversation)
            shape = self._shape(conversation)
            forms = self._forms(conversation, shape)
        except Unclear as error:
            raise UserError(
                f"{conversation.origin}: the tokenizer's own chat template cannot be split into segments exactly: "
                f"{error}. {_ADVICE}"
            ) from None
        return list(self._segments(conversation, shape, forms))

    def _shape(self, conversation: Conversation) -> Shape:
        if conversation.has_tools:  # calls are fixed text here, so shapes are rarely equal
            return self._new_shape(conversation)
        key = tuple((turn.role, bool(turn.context), bool(turn.thinking)) for turn in conversation.turns)
        if key not in self._shapes:
            self._shapes[key] = self._new_shape(conversation)
        return self._shapes[key]

    def _new_shape(self, conversation: Conversation) -> Shape:
        shape = cut(conversation, self._apply, self.ending)
        if not has_marks(self.source) or not conversation.is_answered or conversation.has_tools:
            return shape
        marked = marked_conversation(conversation, shape.slots)
        messages = _messages(marked, has_input=self.has_input)
        turns = marked_turns(marked, messages, shape.slots, self.tokenizer, self.source)
        return replace(shape, emitted=shape.emitted & turns)

    def _check_thinking(self, conversation: Conversation) -> None:
        if self.closes_thinking and any(turn.thinking for turn in conversation.turns):
            raise UserError(
                f"{conversation.origin}: has thinking, but the prompt of the tokenizer's chat template ends with "
                "'</think>', so no thinking can follow. Set `--data.thinking strip`, turn thinking on with "
                "`--data.chat_template_kwargs`, or set `--data.on_invalid drop`."
            )

    def _check_markers(self, conversation: Conversation) -> None:
        """Refuse special tokens in tools and calls, which the template writes as its own text."""
        texts = [
            part for turn in conversation.turns for call in turn.tool_calls for part in (call.name, call.arguments)
        ]
        for text in (*texts, *conversation.tools):
            for token in self.tokenizer.get_added_vocab():
                if token in text:
                    raise UserError(
                        f"{conversation.origin}: a tool or its call contains {token!r}, a special token of the "
                        "tokenizer. Remove it, or set `--data.on_invalid drop`."
                    )

    def _forms(self, conversation: Conversation, shape: Shape) -> dict[Slot, str]:
        """The contents as the template renders them: unchanged, or without white space at their ends."""
        given = [getattr(conversation.turns[turn], part) for turn, part in shape.slots]
        forms = _matched(shape.prompt, given, self._apply(conversation.prompt()))
        answer = _ending_in(shape.answer, given, self._apply(conversation)) if shape.answer is not None else {}
        if forms is None or answer is None:
            raise Unclear("it does not render turns unchanged between fixed markers")
        forms = {**forms, **answer}
        return {slot: forms.get(index, given[index]) for index, slot in enumerate(shape.slots)}

    def _segments(self, conversation: Conversation, shape: Shape, forms: Mapping[Slot, str]) -> Iterator[Segment]:
        last = len(conversation.turns) - 1
        for item in shape.items:
            turn = conversation.turns[item.turn]
            kind = _KINDS[item.stage](turn, final=item.turn == last)
            if turn.role is Role.ASSISTANT and item.turn not in shape.emitted:
                kind = SegmentKind.CONTEXT_ANSWER
            if item.slot is not None:
                text = forms[item.slot]
                if text:
                    is_read = turn.role is Role.ASSISTANT and not item.is_emitted
                    yield Segment(text, kind, item.turn, context=item.slot[1] == "context", is_read=is_read)
            elif not item.is_emitted:
                yield from fixed_text(item.text, item.turn)
            else:
                text = item.text.removesuffix(self.end)
                if text:
                    yield Segment(text, kind, item.turn, control=True)
                if text != item.text:
                    yield end_token(self.end, kind, item.turn)

    def _apply(self, conversation: Conversation) -> str:
        from jinja2.exceptions import TemplateError

        try:
            text = self.tokenizer.apply_chat_template(
                _messages(conversation, has_input=self.has_input),
                tools=[json.loads(tool) for tool in conversation.tools] or None,
                chat_template=(self.tool_source if conversation.tools else None) or self.source,
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


def own_template(tokenizer: PreTrainedTokenizerBase) -> ChatTemplate:
    """The tokenizer's own chat template, with the end token found in it.

    Args:
        tokenizer: Has a chat template; of several, the one named `default` is used.

    Raises:
        UserError: If there is no chat template, or none that ends answers with a special token.
    """
    source = source_of(tokenizer)
    if source is None:
        raise UserError("the tokenizer has no chat template; use `--data.template plain` (or alpaca, chatml).")
    draft = ChatTemplate(tokenizer, with_options(source, ChatOptions()), End("", is_rendered=True), has_input=True)
    user, answer = Message(Role.USER, mark(0), context=mark(2)), Message(Role.ASSISTANT, mark(1))
    exchange = Conversation((user, answer), "the template")
    rendered = draft._apply(exchange)
    try:
        longer = draft._apply(Conversation((user, answer, Message(Role.USER, mark(3))), "the template"))
    except UserError:
        longer = ""  # a template for a single exchange
    after_last = MARK.split(rendered.partition(answer.content)[2])[0]
    after_earlier = MARK.split(longer.partition(answer.content)[2])[0]
    try:
        ending = find_end(after_last, after_earlier, list(map(str, tokenizer.get_added_vocab())), tokenizer.eos_token)
    except Unclear as error:
        raise UserError(
            f"the template: the tokenizer's own chat template cannot be split into segments exactly: {error}. {_ADVICE}"
        ) from None
    has_input, tools = user.context in rendered, None
    if isinstance(tokenizer.chat_template, dict) and "tool_use" in tokenizer.chat_template:
        tools = with_options(str(tokenizer.chat_template["tool_use"]), ChatOptions())
    found = ChatTemplate(tokenizer, draft.source, ending, has_input, tool_source=tools)
    closes = found._apply(Conversation((user,), "the template")).rstrip().endswith("</think>")
    return replace(found, renders_thinking=_renders_thinking(found), closes_thinking=closes)


def _renders_thinking(template: ChatTemplate) -> bool:
    """Whether a template has thinking before answers, from the field of a message."""
    thinks = Message(Role.ASSISTANT, mark(1), thinking=mark(0))
    try:
        cut(Conversation((Message(Role.USER, mark(2)), thinks), "the template"), template._apply, template.ending)
    except (Unclear, UserError):
        return False
    return True


def _with_thinking_inside(conversation: Conversation) -> Conversation:
    """The conversation with its thinking as part of the answers."""
    if any(turn.thinking and not turn.is_thinking_trained for turn in conversation.turns):
        raise Unclear("it does not render thinking, so `--data.thinking mask` cannot tell it from the answer")
    turns = (replace(turn, content=with_thinking(turn), thinking="") for turn in conversation.turns)
    return replace(conversation, turns=tuple(turns))


def _messages(conversation: Conversation, *, has_input: bool) -> list[dict[str, Any]]:
    return [_message(turn, has_input=has_input) for turn in conversation.turns]


def _message(turn: Message, *, has_input: bool) -> dict[str, Any]:
    content = f"{turn.content}\n{turn.context}" if turn.context and not has_input else turn.content
    message: dict[str, Any] = {"role": turn.role.value, "content": content}
    if turn.context and has_input:
        message[INPUT_KEY] = turn.context
    if turn.thinking:
        message["reasoning_content"] = turn.thinking
    if turn.tool_calls:
        message["tool_calls"] = [_call(call) for call in turn.tool_calls]
    given = {"tool_call_id": turn.call_id, "name": turn.name}
    return message | {name: value for name, value in given.items() if value}


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": json.loads(call.arguments)}
    return {"type": "function", "function": function, **({"id": call.id} if call.id else {})}


def _matched(pieces: Pieces, given: list[str], rendered: str) -> dict[int, str] | None:
    """The forms of the contents with which pieces make exactly the rendered text; None if there are none."""
    if not rendered.startswith(pieces[0]):
        return None
    place, found = len(pieces[0]), {}
    for index, after in zip(map(int, pieces[1::2]), pieces[2::2], strict=True):
        form = next((form for form in _stripped(given[index]) if rendered.startswith(form + after, place)), None)
        if form is None:
            return None
        found[index] = form
        place += len(form) + len(after)
    return found if place == len(rendered) else None


def _ending_in(pieces: Pieces, given: list[str], rendered: str) -> dict[int, str] | None:
    """The forms of the contents with which pieces make the end of the rendered text; None if there are none."""
    indices = [int(index) for index in pieces[1::2]]
    for forms in product(*(_stripped(given[index]) for index in indices)):
        if rendered.endswith(pieces[0] + "".join(map(str.__add__, forms, pieces[2::2]))):
            return dict(zip(indices, forms, strict=True))
    return None


def _stripped(text: str) -> list[str]:
    """Forms in which a template may render a content, the likeliest first."""
    return list(
        dict.fromkeys(
            (text, text.strip(), text.lstrip(), text.rstrip(), text.strip("\n"), text.lstrip("\n"), text.rstrip("\n"))
        )
    )
