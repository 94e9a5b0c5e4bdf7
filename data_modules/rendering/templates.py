"""Chat templates render a conversation as segments of text, each of one kind. A new style is one Template value.

Training and inference share this rendering: a prompt is the rendered conversation without its last answer, so a model
is trained on exactly the prompts it will see.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Literal

from transformers import PreTrainedTokenizerBase

from data_modules.errors import UserError
from data_modules.records.conversation import Conversation, Message, Role
from data_modules.rendering.segments import ASSISTANT_KINDS, Segment, SegmentKind
from data_modules.wording import reason_of

TemplateName = Literal["auto", "alpaca", "chatml", "plain", "tokenizer"]


INPUT_KEY = "input"
"""The field for a user message's context in exported chat templates."""

_CHECKED_FIRST, _CHECKED_LAST = 24, 8
"""The prompts of these answers are always checked; of the others, only those preceded by new fixed text."""


@dataclass(frozen=True, slots=True)
class Template:
    """A chat style as strings with the placeholders {system}, {user} and {context}.

    Attributes:
        name: What the user types.
        user: A user turn and the header of its answer.
        user_with_context: The same for a user turn with context.
        end: The one token that ends an answer: it is trained, and generation stops on it. None: the tokenizer's eos.
        opening: Starts a conversation without a system turn.
        opening_with_context: The same if the first user turn has context.
        system: A system turn, which replaces the opening.
        between: Separates an answer from the next user turn.
        closing: Follows the last answer.
    """

    name: str
    user: str
    user_with_context: str
    end: str | None = None
    opening: str = ""
    opening_with_context: str = ""
    system: str = "{system}\n\n"
    between: str = "\n\n"
    closing: str = ""

    def render(self, conversation: Conversation) -> list[Segment]:
        """Render a conversation as segments. A bare prompt ends with the header of the answer to come."""
        assert self.end is not None, "resolve_template fills in the end"
        if conversation.is_text:
            return [_segment(conversation.turns[0].content, SegmentKind.TEXT), _end(self.end, SegmentKind.TEXT, 0)]
        segments = list(self._render_opening(conversation))
        last = len(conversation.turns) - 1
        for index, turn in enumerate(conversation.turns):
            if turn.role is Role.USER:
                segments += _fill(self.user_with_context if turn.context else self.user, turn, index)
            elif turn.role is Role.ASSISTANT:
                kind = _kind(turn, final=index == last)
                segments += [_segment(turn.content, kind, index), _end(self.end, kind, index)]
                segments += _literal(self.closing if index == last else self.between, index)
        return list(_joined(segments))

    def _render_opening(self, conversation: Conversation) -> Iterator[Segment]:
        first = conversation.turns[0]
        if first.role is Role.SYSTEM:
            yield from _fill(self.system, first, 0)
        else:
            yield from _literal(self.opening_with_context if first.context else self.opening, 0)


# Source: Stanford Alpaca's training prompts; no newline follows "### Response:".
ALPACA = Template(
    name="alpaca",
    opening="Below is an instruction that describes a task. Write a response that appropriately completes the "
    "request.\n\n",
    opening_with_context="Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n",
    user="### Instruction:\n{user}\n\n### Response:",
    user_with_context="### Instruction:\n{user}\n\n### Input:\n{context}\n\n### Response:",
)

# Source: OpenAI's chat markup language as Qwen uses it, without Qwen's default system prompt.
CHATML = Template(
    name="chatml",
    system="<|im_start|>system\n{system}<|im_end|>\n",
    user="<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n",
    user_with_context="<|im_start|>user\n{user}\n{context}<|im_end|>\n<|im_start|>assistant\n",
    end="<|im_end|>",
    between="\n",
    closing="\n",
)

PLAIN = Template(
    name="plain",
    user="User:\n{user}\n\nAssistant:\n",
    user_with_context="User:\n{user}\n\n{context}\n\nAssistant:\n",
)

TEMPLATES: dict[str, Template] = {template.name: template for template in (ALPACA, CHATML, PLAIN)}


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
            return [_segment(conversation.turns[0].content, SegmentKind.TEXT), _end(self.end, SegmentKind.TEXT, 0)]
        contents, literals = _contents(conversation), self._literals(conversation)
        rendered = self._apply(conversation)
        if rendered != _join(literals, contents):
            # many templates strip the contents; segments of the stripped text are then exact
            contents = [replace(part, text=part.text.strip()) for part in contents]
            if rendered != _join(literals, contents):
                raise self._refusal(conversation, "it does not render turns unchanged between fixed markers")
        segments = list(_literal(literals[0], 0))
        for part, literal in zip(contents, literals[1:], strict=True):
            segments += [part] if part.text else []
            if part.kind in ASSISTANT_KINDS:
                segments.append(_end(self.end, part.kind, part.turn))
                literal = literal.removeprefix(self.end)
            segments += _literal(literal, part.turn)
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


AnyTemplate = Template | ChatTemplate


def resolve_template(name: TemplateName, tokenizer: PreTrainedTokenizerBase) -> AnyTemplate:
    """The named template, with this tokenizer's end token filled in.

    Args:
        name: `auto` uses the tokenizer's own chat template if it has one, else `plain`.
        tokenizer: Must have the end token as a single token.

    Raises:
        UserError: If the tokenizer lacks what the template needs.
    """
    if name == "auto":
        name = "tokenizer" if tokenizer.chat_template else "plain"
    if name == "tokenizer":
        return _tokenizer_template(tokenizer)
    template = TEMPLATES[name]
    end = template.end or tokenizer.eos_token
    if end is None:
        raise UserError(
            f"template '{name}' ends answers with the eos token, but this tokenizer has none; set `eos_token` in its "
            "tokenizer_config.json, or use `--data.template chatml`."
        )
    for marker in sorted({end, *re.findall(r"<\|\w+\|>", template.user)}):
        if marker not in tokenizer.get_vocab():
            raise UserError(
                f"template '{name}' needs the token {marker!r}, which this tokenizer does not have; use "
                "`--data.template plain` (or alpaca), or a tokenizer that has it."
            )
    return replace(template, end=end)


def _tokenizer_template(tokenizer: PreTrainedTokenizerBase) -> ChatTemplate:
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
        parts.append(_segment(turn.content, _kind(turn, final=index == last), index))
        if turn.context:
            parts.append(replace(_segment(turn.context, SegmentKind.USER, index), context=True))
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


def _kind(turn: Message, *, final: bool) -> SegmentKind:
    if turn.role is Role.ASSISTANT:
        if not turn.is_trained:
            return SegmentKind.CONTEXT_ANSWER
        return SegmentKind.FINAL_ANSWER if final else SegmentKind.ANSWER
    return SegmentKind.SYSTEM if turn.role is Role.SYSTEM else SegmentKind.USER


def _join(literals: list[str], contents: list[Segment]) -> str:
    pairs = zip(literals[1:], contents, strict=True)
    return literals[0] + "".join(part.text + literal for literal, part in pairs)


def _fill(pattern: str, turn: Message, index: int) -> list[Segment]:
    """Segments of a pattern such as "User: {user}" for one system or user turn."""
    values = {
        "{system}": Segment(turn.content, SegmentKind.SYSTEM, index),
        "{user}": Segment(turn.content, SegmentKind.USER, index),
        "{context}": Segment(turn.context, SegmentKind.USER, index, context=True),
    }
    segments: list[Segment] = []
    for piece in re.split(r"(\{system\}|\{user\}|\{context\})", pattern):
        segments += [values[piece]] if piece in values else _literal(piece, index)
    return segments


def _joined(segments: list[Segment]) -> Iterator[Segment]:
    """Merge adjacent fixed texts, so that they are tokenized as one."""
    for is_fixed, run in groupby(segments, key=lambda segment: segment.kind is SegmentKind.TEMPLATE):
        parts = list(run)
        if is_fixed:
            yield replace(parts[-1], text="".join(part.text for part in parts))
        else:
            yield from parts


def _segment(text: str, kind: SegmentKind, turn: int = 0) -> Segment:
    return Segment(text, kind, turn)


def _end(text: str, kind: SegmentKind, turn: int) -> Segment:
    return Segment(text, kind, turn, control=True)


def _literal(text: str, turn: int) -> list[Segment]:
    return [Segment(text, SegmentKind.TEMPLATE, turn, control=True)] if text else []
