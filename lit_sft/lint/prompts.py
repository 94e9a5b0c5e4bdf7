"""Compares the prompts of training with those that the exported tokenizer gives at inference."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from jinja2.sandbox import ImmutableSandboxedEnvironment

from data_modules.encoding.encoder import Encoder
from data_modules.encoding.example import Example
from data_modules.records.conversation import Conversation, Message, Role
from data_modules.records.thinking import with_thinking
from data_modules.rendering.chat_template import ChatTemplate
from data_modules.rendering.jinja_source import INPUT_KEY
from data_modules.rendering.segments import FINAL_KINDS, SegmentKind
from data_modules.rendering.templates import Template
from lit_sft.models.chat_template import jinja_of

_BEFORE, _AFTER = 12, 24
"""Characters on either side of the border before an answer that can be part of one token."""

_LAST = frozenset(map(int, (*FINAL_KINDS, SegmentKind.CONTEXT_ANSWER)))

_SHOWN = 8
"""Tokens shown where two prompts part."""


class PromptCheck:
    """Encodes prompts as a program does that loads the exported tokenizer.

    Args:
        encoder: The encoder that the examples come from.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._tokenizer, template = encoder.tokenizer, encoder.template
        self._ids_of = encoder.ids_of_prompt
        self._own, is_own = None, isinstance(template, Template)
        self._thinks_apart = not isinstance(template, ChatTemplate) or template.renders_thinking
        self._chat_template = (
            template.exported
            if isinstance(template, ChatTemplate)
            else jinja_of(template, bos=encoder.starts_documents)
        )
        if is_own:
            # the environment that transformers renders chat templates in, without its work for each call
            environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
            self._own = environment.from_string(self._chat_template)
        self._edges: dict[str, list[int]] = {}

    def text_of(self, conversation: Conversation) -> str | None:
        """The prompt before the last answer as the exported chat template renders it; None if it is rejected."""
        messages = self._messages(conversation)
        try:
            if self._own and not conversation.has_tools:
                return self._own.render(
                    messages=messages, add_generation_prompt=True, bos_token=self._tokenizer.bos_token
                )
            return str(
                self._tokenizer.apply_chat_template(
                    messages,
                    tools=[json.loads(tool) for tool in conversation.tools] or None,
                    chat_template=self._chat_template,
                    tokenize=False,
                    add_generation_prompt=True,
                )
            )
        except Exception:  # a template is a program and can fail in any way; encoding has reported it
            return None

    def difference(self, text: str, example: Example) -> tuple[str, str] | None:
        """Where the prompt of an example differs from the ids of a text: what was found, and the text there.

        Args:
            text: From `text_of`.
            example: The whole example, not truncated.
        """
        expected = self._ids_of(text)
        if _is_prompt(example, expected):
            return None
        trained = example.prompt_ids()
        place = next(
            (index for index, pair in enumerate(zip(expected, trained, strict=False)) if pair[0] != pair[1]),
            min(len(expected), len(trained)),
        )
        ours, theirs = (self._words(ids[place : place + _SHOWN]) for ids in (trained, expected))
        return f"from token {place}, trained {ours}, at inference {theirs}", self._tokenizer.decode(
            trained[max(0, place - _SHOWN) : place + _SHOWN]
        )

    def merge(self, text: str, answer: str) -> str | None:
        """The text of the token that joins the end of a prompt and the beginning of an answer; None if none does.

        Args:
            text: The prompt.
            answer: The answer.
        """
        edge = text[-_BEFORE:]
        if edge not in self._edges:
            self._edges = {edge: self._ids_of(edge)}  # nearly always the end of the same header
        alone, together = self._edges[edge], self._ids_of(edge + answer[:_AFTER])
        if together[: len(alone)] == alone:
            return None
        place = next(index for index, token in enumerate(alone) if together[index : index + 1] != [token])
        return str(self._tokenizer.decode(together[place : place + 1]))

    def _messages(self, conversation: Conversation) -> list[dict[str, Any]]:
        return [_message(turn, thinking_apart=self._thinks_apart) for turn in conversation.turns[:-1]]

    def _words(self, ids: list[int]) -> str:
        return " ".join(repr(self._tokenizer.decode([index])) for index in ids[:3]) or "nothing"


def _message(turn: Message, *, thinking_apart: bool) -> dict[str, Any]:
    """A turn as a message for `apply_chat_template`."""
    message: dict[str, Any] = {"role": turn.role.value, "content": turn.content}
    if turn.context:
        message[INPUT_KEY] = turn.context
    if turn.thinking:
        message |= {"reasoning_content": turn.thinking} if thinking_apart else {"content": with_thinking(turn)}
    if turn.tool_calls:
        message["tool_calls"] = [
            {"type": "function", "function": {"name": call.name, "arguments": json.loads(call.arguments)}}
            | ({"id": call.id} if call.id else {})
            for call in turn.tool_calls
        ]
    given = {"tool_call_id": turn.call_id, "name": turn.name}
    return message | {name: value for name, value in given.items() if value}


def _is_prompt(example: Example, ids: list[int]) -> bool:
    """Whether ids are the prompt of an example; quicker than building it."""
    length = len(ids)
    if not 0 < length < len(example) or example.kinds[length] not in _LAST or example.kinds[length - 1] in _LAST:
        return False
    return bool((example.input_ids[:length] == np.asarray(ids, dtype=np.int32)).all())


def has_prompt(conversation: Conversation) -> bool:
    """Whether a conversation ends with an answer to a prompt."""
    return len(conversation.turns) > 1 and conversation.turns[-1].role is Role.ASSISTANT
