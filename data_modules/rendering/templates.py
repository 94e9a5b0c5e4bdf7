"""Chat templates render a conversation as segments of text, each of one kind. A new style is one Template value.

Training and inference share this rendering: a prompt is the rendered conversation without its last answer, so a model
is trained on exactly the prompts it will see.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from transformers import PreTrainedTokenizerBase

from data_modules.errors import UserError
from data_modules.records.conversation import Conversation, Message, Role
from data_modules.records.thinking import CLOSING, OPENING
from data_modules.records.tools import call_text
from data_modules.rendering.chat_template import ChatTemplate, own_template
from data_modules.rendering.jinja_source import ChatOptions, source_of, with_options
from data_modules.rendering.segments import (
    Segment,
    SegmentKind,
    end_token,
    fixed_text,
    kind_of_calls,
    kind_of_thinking,
    kind_of_turn,
)

TemplateName = Literal["auto", "alpaca", "chatml", "plain", "tokenizer"]


@dataclass(frozen=True, slots=True)
class ToolStyle:
    """How a template writes tools, as strings with the placeholders {system}, {tools}, {call} and {result}.

    Attributes:
        system: A system turn with the functions that may be called, each a line of JSON.
        opening: The same without a system turn.
        call: A call; calls are separated from the text before them and from each other by a line break.
        first_result: The first result after an assistant's turn.
        next_result: Every other one.
        after_results: Follows the last of them: the header of the answer.
    """

    system: str
    opening: str
    call: str
    first_result: str
    next_result: str
    after_results: str


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
        tools: How tools are written. None: conversations with tools are refused.
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
    tools: ToolStyle | None = None

    @property
    def fixed(self) -> str:
        """The text whose markers must not become tokens in contents: those that structure a conversation.

        Markers of thinking and tools may: models write them, and in other records they are part of the text.
        """
        return repr(replace(self, tools=None))

    @property
    def layout(self) -> str:
        """Everything that the rendered text depends on, besides the conversation."""
        return repr(self)

    def render(self, conversation: Conversation) -> list[Segment]:
        """Render a conversation as segments. A bare prompt ends with the header of the answer to come.

        Raises:
            UserError: If the conversation has tools and the template cannot write them.
        """
        assert self.end is not None, "resolve_template fills in the end"
        if conversation.is_text:
            return [
                Segment(conversation.turns[0].content, SegmentKind.TEXT, 0),
                end_token(self.end, SegmentKind.TEXT, 0),
            ]
        if self.tools is None and conversation.has_tools:
            raise UserError(
                f"{conversation.origin}: template '{self.name}' cannot write tools, tool calls or their results; use "
                "`--data.template chatml` (or the tokenizer's own), or set `--data.on_invalid drop`."
            )
        segments = list(self._render_opening(conversation))
        turns, last = conversation.turns, len(conversation.turns) - 1
        for index, turn in enumerate(turns):
            if turn.role is Role.USER:
                segments += _fill(self.user_with_context if turn.context else self.user, turn, index)
            elif turn.role is Role.TOOL:
                segments += self._render_result(turns, index)
            elif turn.role is Role.ASSISTANT:
                segments += self._render_answer(turn, index, final=index == last)
                segments += fixed_text(self.closing if index == last else self.between, index)
        return _joined(segments)

    def _render_opening(self, conversation: Conversation) -> Iterator[Segment]:
        first = conversation.turns[0]
        if self.tools and conversation.tools:
            pattern = self.tools.system if first.role is Role.SYSTEM else self.tools.opening
            yield from _fill(pattern, first, 0, tools="\n".join(conversation.tools))
        elif first.role is Role.SYSTEM:
            yield from _fill(self.system, first, 0)
        else:
            yield from fixed_text(self.opening_with_context if first.context else self.opening, 0)

    def _render_answer(self, turn: Message, index: int, *, final: bool) -> Iterator[Segment]:
        """What the model emits: its thinking, its text, its calls and the end token."""
        assert self.end is not None
        kind = kind_of_turn(turn, final=final)
        if turn.thinking:
            yield from _emitted(OPENING, turn.thinking, CLOSING, kind_of_thinking(turn, final=final), index)
        if turn.content:
            yield Segment(turn.content, kind, index)
        for number, call in enumerate(turn.tool_calls):
            assert self.tools is not None
            kind = kind_of_calls(turn, final=final)
            before, after = self.tools.call.split("{call}")
            line = "\n" if number or turn.content else ""
            yield from _emitted(line + before, call_text(call), after, kind, index)
        yield end_token(self.end, kind, index)

    def _render_result(self, turns: tuple[Message, ...], index: int) -> Iterator[Segment]:
        assert self.tools is not None
        is_first = turns[index - 1].role is not Role.TOOL
        yield from _fill(self.tools.first_result if is_first else self.tools.next_result, turns[index], index)
        if index + 1 == len(turns) or turns[index + 1].role is not Role.TOOL:
            yield from fixed_text(self.tools.after_results, index)


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

_CHATML_TOOLS = """# Tools

You can call functions. Each line between <tools> and </tools> describes one of them:
<tools>
{tools}
</tools>

To call a function, write its name and its arguments as a JSON object between <tool_call> and </tool_call>:
<tool_call>
{"name": "the function", "arguments": {"the argument": "its value"}}
</tool_call>"""

# Source: OpenAI's chat markup language as Qwen uses it, without Qwen's default system prompt. The markers of tools are
# those of Hermes and Qwen; the words around them are our own.
CHATML = Template(
    name="chatml",
    system="<|im_start|>system\n{system}<|im_end|>\n",
    user="<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n",
    user_with_context="<|im_start|>user\n{user}\n{context}<|im_end|>\n<|im_start|>assistant\n",
    end="<|im_end|>",
    between="\n",
    closing="\n",
    tools=ToolStyle(
        system=f"<|im_start|>system\n{{system}}\n\n{_CHATML_TOOLS}<|im_end|>\n",
        opening=f"<|im_start|>system\n{_CHATML_TOOLS}<|im_end|>\n",
        call="<tool_call>\n{call}\n</tool_call>",
        first_result="<|im_start|>user\n<tool_response>\n{result}\n</tool_response>",
        next_result="\n<tool_response>\n{result}\n</tool_response>",
        after_results="<|im_end|>\n<|im_start|>assistant\n",
    ),
)

PLAIN = Template(
    name="plain",
    user="User:\n{user}\n\nAssistant:\n",
    user_with_context="User:\n{user}\n\n{context}\n\nAssistant:\n",
)

TEMPLATES: dict[str, Template] = {template.name: template for template in (ALPACA, CHATML, PLAIN)}


AnyTemplate = Template | ChatTemplate


def tokenizer_with_options(
    tokenizer: PreTrainedTokenizerBase, name: TemplateName, options: ChatOptions
) -> PreTrainedTokenizerBase:
    """The tokenizer, with these settings in its chat template.

    Args:
        tokenizer: Not changed.
        name: The template in use: the settings are those of the tokenizer's own.
        options: If nothing is set, the result is the given tokenizer.

    Raises:
        UserError: If another template is used, or the tokenizer's own does not have these settings.
    """
    if options.is_default:
        return tokenizer
    source = source_of(tokenizer)
    if source is None or _chosen(name, tokenizer) != "tokenizer":
        raise UserError(
            "`--data.template_date` and `--data.chat_template_kwargs` belong to the tokenizer's own chat template, "
            f"but the template is '{_chosen(name, tokenizer)}'; remove them, or set `--data.template tokenizer`."
        )
    changed = copy.deepcopy(tokenizer)
    if isinstance(changed.chat_template, dict) and "tool_use" in changed.chat_template:
        names = ("default", "tool_use")
        changed.chat_template |= {name: with_options(str(source_of(tokenizer, name)), options) for name in names}
    else:
        changed.chat_template = with_options(source, options)
    return changed


def _chosen(name: TemplateName, tokenizer: PreTrainedTokenizerBase) -> TemplateName:
    if name != "auto":
        return name
    return "tokenizer" if tokenizer.chat_template else "plain"


def resolve_template(name: TemplateName, tokenizer: PreTrainedTokenizerBase) -> AnyTemplate:
    """The named template, with this tokenizer's end token filled in.

    Args:
        name: `auto` uses the tokenizer's own chat template if it has one, else `plain`.
        tokenizer: Must have the end token as a single token.

    Raises:
        UserError: If the tokenizer lacks what the template needs.
    """
    name = _chosen(name, tokenizer)
    if name == "tokenizer":
        return own_template(tokenizer)
    template = TEMPLATES[name]
    end = template.end or tokenizer.eos_token
    if end is None:
        raise UserError(
            f"template '{name}' ends answers with the eos token, but this tokenizer has none; set `eos_token` in its "
            "tokenizer_config.json, or use `--data.template chatml`."
        )
    markers = sorted({end, *re.findall(r"<\|\w+\|>", template.user)}, reverse=True)
    if missing := [marker for marker in markers if tokenizer.backend_tokenizer.token_to_id(marker) is None]:
        raise UserError(
            f"template '{name}' needs the token {missing[-1]!r}, which this tokenizer does not have; use "
            "`--data.template plain` (or alpaca), or a tokenizer that has it, or add it: "
            f"`--model.backbone.add_special_tokens '[{', '.join(missing)}]'`."
        )
    return replace(template, end=end)


_SLOTS = {
    "{system}": (SegmentKind.SYSTEM, False),
    "{user}": (SegmentKind.USER, False),
    "{context}": (SegmentKind.USER, True),
    "{tools}": (SegmentKind.SYSTEM, False),
    "{result}": (SegmentKind.TOOL_RESULT, True),
}
"""The kind of each placeholder's text, and whether it is truncated first."""


def _fill(pattern: str, turn: Message, index: int, tools: str = "") -> list[Segment]:
    """Segments of a pattern such as "User: {user}" for one system or user turn, or the result of a tool."""
    others = {"{context}": turn.context, "{tools}": tools}
    segments = []
    for piece in _pieces(pattern):
        if piece not in _SLOTS:
            segments.append(Segment(piece, SegmentKind.TEMPLATE, index, control=True))
        elif text := others.get(piece, turn.content):
            kind, is_context = _SLOTS[piece]
            segments.append(Segment(text, kind, index, context=is_context))
    return segments


@lru_cache(maxsize=64)
def _pieces(pattern: str) -> list[str]:
    """A pattern in fixed texts and placeholders."""
    return list(filter(None, re.split(f"({'|'.join(map(re.escape, _SLOTS))})", pattern)))


def _emitted(before: str, text: str, after: str, kind: SegmentKind, index: int) -> Iterator[Segment]:
    """A text between markers, all of which the model emits."""
    yield Segment(before, kind, index, control=True)
    yield Segment(text, kind, index)
    yield Segment(after, kind, index, control=True)


def _joined(segments: list[Segment]) -> list[Segment]:
    """Merge adjacent fixed texts."""
    joined: list[Segment] = []
    for segment in segments:
        is_fixed = segment.kind is SegmentKind.TEMPLATE
        if is_fixed and joined and joined[-1].kind is SegmentKind.TEMPLATE:
            segment = replace(segment, text=joined.pop().text + segment.text)
        joined.append(segment)
    return joined
