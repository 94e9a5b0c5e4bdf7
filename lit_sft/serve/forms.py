"""The JSON of answers: whole, and in parts as they are streamed, for chats and for completions."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lit_sft.models.generation import Generated
from lit_sft.serve.logprobs import Reported, chat_logprobs, completion_logprobs

Kind = Literal["chat", "completion"]


@dataclass(frozen=True)
class Form:
    """Writes the answers to one request.

    Attributes:
        kind: Which endpoint answers.
        model: The model's name.
        bytes_of: The bytes of a token.
        num_likeliest: The likeliest tokens to report for every place. None: no log-probabilities.
        has_usage: Whether a stream ends with the number of tokens.
        id: Of the answer; the same in all its parts.
        created: When the request came, in seconds since 1970.
    """

    kind: Kind
    model: str
    bytes_of: Callable[[int], bytes]
    num_likeliest: int | None
    has_usage: bool = False
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, choices: list[dict[str, Any]], usage: dict[str, int]) -> dict[str, Any]:
        """The whole answer."""
        kind = "chat.completion" if self.kind == "chat" else "text_completion"
        return self._head(kind) | {"choices": choices, "usage": usage}

    def choice(self, index: int, text: str, tokens: Sequence[Reported], reason: str) -> dict[str, Any]:
        """One of the answers, whole."""
        if self.kind == "chat":
            said: dict[str, Any] = {"message": {"role": "assistant", "content": text, "refusal": None}}
        else:
            said = {"text": text}
        return {"index": index, **said, "logprobs": self._logprobs(tokens), "finish_reason": reason}

    def opening(self, index: int) -> str | None:
        """The event before the first piece of an answer; completions have none."""
        if self.kind != "chat":
            return None
        return self._part(index, {"delta": {"role": "assistant", "content": "", "refusal": None}}, None, None)

    def piece(self, index: int, text: str, tokens: Sequence[Reported]) -> str:
        """The event of a piece of an answer."""
        said = {"delta": {"content": text}} if self.kind == "chat" else {"text": text}
        return self._part(index, said, self._logprobs(tokens), None)

    def ending(self, index: int, reason: str) -> str:
        """The event after the last piece."""
        return self._part(index, {"delta": {}} if self.kind == "chat" else {"text": ""}, None, reason)

    def final(self, usage: dict[str, int]) -> str:
        """The events at the end of a stream."""
        counts = event({**self._head(self._part_kind), "choices": [], "usage": usage}) if self.has_usage else ""
        return counts + "data: [DONE]\n\n"

    @property
    def _part_kind(self) -> str:
        return "chat.completion.chunk" if self.kind == "chat" else "text_completion"

    def _head(self, kind: str) -> dict[str, Any]:
        prefix = "chatcmpl" if self.kind == "chat" else "cmpl"
        return {"id": f"{prefix}-{self.id}", "object": kind, "created": self.created, "model": self.model}

    def _part(self, index: int, said: dict[str, Any], logprobs: Any, reason: str | None) -> str:
        choice = {"index": index, **said, "logprobs": logprobs, "finish_reason": reason}
        usage = {"usage": None} if self.has_usage else {}
        return event({**self._head(self._part_kind), "choices": [choice], **usage})

    def _logprobs(self, tokens: Sequence[Reported]) -> dict[str, Any] | None:
        if self.num_likeliest is None:
            return None
        if self.kind == "chat":
            return chat_logprobs(tokens, self.bytes_of)
        return completion_logprobs(tokens, self.bytes_of, has_likeliest=self.num_likeliest > 0)


def event(value: dict[str, Any]) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(value, ensure_ascii=False, allow_nan=False)}\n\n"


def finish_reason(answer: Generated) -> str:
    """Why an answer ended, in the API's words."""
    return "length" if answer.is_cut else "stop"


def usage_of(num_prompt: int, answers: Sequence[Generated]) -> dict[str, int]:
    """The tokens of a request: its prompts, counted once each, and all answers."""
    num_answer = sum(answer.num_tokens for answer in answers)
    return {
        "prompt_tokens": num_prompt,
        "completion_tokens": num_answer,
        "total_tokens": num_prompt + num_answer,
    }
