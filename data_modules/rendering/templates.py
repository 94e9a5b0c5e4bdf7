"""Chat templates render a conversation as segments of text, each of one kind. A new style is one Template value.

Training and inference share this rendering: a prompt is the rendered conversation without its last answer, so a model
is trained on exactly the prompts it will see.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

from transformers import PreTrainedTokenizerBase

from data_modules.errors import UserError
from data_modules.records.conversation import Conversation, Message, Role
from data_modules.rendering.chat_template import ChatTemplate, own_template
from data_modules.rendering.jinja_source import ChatOptions, source_of, with_options
from data_modules.rendering.segments import Segment, SegmentKind, end_token, fixed_text, kind_of_turn

TemplateName = Literal["auto", "alpaca", "chatml", "plain", "tokenizer"]


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

    @property
    def layout(self) -> str:
        """Everything that the rendered text depends on, besides the conversation."""
        return repr(self)

    def render(self, conversation: Conversation) -> list[Segment]:
        """Render a conversation as segments. A bare prompt ends with the header of the answer to come."""
        assert self.end is not None, "resolve_template fills in the end"
        if conversation.is_text:
            return [
                Segment(conversation.turns[0].content, SegmentKind.TEXT, 0),
                end_token(self.end, SegmentKind.TEXT, 0),
            ]
        segments = list(self._render_opening(conversation))
        last = len(conversation.turns) - 1
        for index, turn in enumerate(conversation.turns):
            if turn.role is Role.USER:
                segments += _fill(self.user_with_context if turn.context else self.user, turn, index)
            elif turn.role is Role.ASSISTANT:
                kind = kind_of_turn(turn, final=index == last)
                segments += [Segment(turn.content, kind, index), end_token(self.end, kind, index)]
                segments += fixed_text(self.closing if index == last else self.between, index)
        return list(_joined(segments))

    def _render_opening(self, conversation: Conversation) -> Iterator[Segment]:
        first = conversation.turns[0]
        if first.role is Role.SYSTEM:
            yield from _fill(self.system, first, 0)
        else:
            yield from fixed_text(self.opening_with_context if first.context else self.opening, 0)


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
    for marker in sorted({end, *re.findall(r"<\|\w+\|>", template.user)}):
        if marker not in tokenizer.get_vocab():
            raise UserError(
                f"template '{name}' needs the token {marker!r}, which this tokenizer does not have; use "
                "`--data.template plain` (or alpaca), or a tokenizer that has it."
            )
    return replace(template, end=end)


def _fill(pattern: str, turn: Message, index: int) -> list[Segment]:
    """Segments of a pattern such as "User: {user}" for one system or user turn."""
    values = {
        "{system}": Segment(turn.content, SegmentKind.SYSTEM, index),
        "{user}": Segment(turn.content, SegmentKind.USER, index),
        "{context}": Segment(turn.context, SegmentKind.USER, index, context=True),
    }
    segments: list[Segment] = []
    for piece in re.split(r"(\{system\}|\{user\}|\{context\})", pattern):
        segments += [values[piece]] if piece in values else fixed_text(piece, index)
    return segments


def _joined(segments: list[Segment]) -> Iterator[Segment]:
    """Merge adjacent fixed texts."""
    for is_fixed, run in groupby(segments, key=lambda segment: segment.kind is SegmentKind.TEMPLATE):
        parts = list(run)
        if is_fixed:
            yield replace(parts[-1], text="".join(part.text for part in parts))
        else:
            yield from parts
