"""What a request asks for: the fields of the API that are supported, those that change nothing, and no others.

Source: https://platform.openai.com/docs/api-reference
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_modules.errors import UserError
from data_modules.records.conversation import Message, Role
from data_modules.records.turn_order import TurnRules, arranged
from lit_sft.models.fitted_prompt import is_empty_answer
from lit_sft.serve.body import Body
from lit_sft.serve.errors import invalid, reason_for_client

_MOST_STOPS = 16
_MOST_LIKELIEST = 20
_MOST_CHOICES = 16
_MOST_PROMPTS = 64
_MOST_MESSAGES = 2048
_SHARED = (
    "model", "temperature", "top_p", "max_tokens", "stop", "seed", "n", "logprobs", "stream", "stream_options",
    "metadata",
)  # fmt: skip

_IGNORED = ("user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention")
"""Strings that do not affect the answer."""

_UNSUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "best_of": (1,),
    "suffix": ("",),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
    "web_search_options": (),
    "store": (False,),
    "service_tier": ("auto", "default"),
}
"""Fields of the API that are not supported, and their values that change nothing."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What both kinds of requests can ask for.

    Attributes:
        model: The name of a model.
        temperature: 0 always takes the likeliest token.
        top_p: Sample from the likeliest tokens that make up this share of the probability.
        max_tokens: The most tokens of an answer; None: the usual limit.
        stop: Strings that end an answer.
        seed: Determines the sampling; None: random.
        num_choices: Answers to each prompt.
        num_likeliest: Log-probabilities to report for each place; None for none.
        is_streamed: Whether to send answers as they are made.
        has_usage: Whether a stream ends with the number of tokens.
    """

    model: str
    temperature: float
    top_p: float
    max_tokens: int | None
    stop: tuple[str, ...]
    seed: int | None
    num_choices: int
    num_likeliest: int | None
    is_streamed: bool
    has_usage: bool


@dataclass(frozen=True, slots=True)
class AskedChat:
    """A request for a chat completion.

    Attributes:
        asked: What it asks for.
        turns: The conversation; it ends with a message of the user.
    """

    asked: Asked
    turns: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class AskedCompletion:
    """A request for completions.

    Attributes:
        asked: What it asks for.
        prompts: Texts or token ids.
        has_echo: Whether the prompt is part of the answer.
    """

    asked: Asked
    prompts: tuple[str | list[int], ...]
    has_echo: bool


def read_chat(body: Body) -> AskedChat:
    """Read a request for a chat completion.

    Raises:
        ApiError: If a field is missing, wrong or not supported.
    """
    own = ("messages", "max_completion_tokens", "top_logprobs")
    body.refuse_unknown((*_SHARED, *_IGNORED, *_UNSUPPORTED, *own))
    num_likeliest = body.whole("top_logprobs", least=0, most=_MOST_LIKELIEST)
    if not body.flag("logprobs"):
        if num_likeliest is not None:
            raise invalid("top_logprobs", "Invalid 'top_logprobs': set 'logprobs' to true as well.", "invalid_value")
    elif num_likeliest is None:
        num_likeliest = 0
    asked = _read_shared(body, _limit(body), num_likeliest)
    return AskedChat(asked, _turns(body))


def read_completion(body: Body) -> AskedCompletion:
    """Read a request for completions.

    Raises:
        ApiError: If a field is missing, wrong or not supported.
    """
    body.refuse_unknown((*_SHARED, *_IGNORED, *_UNSUPPORTED, "prompt", "echo"))
    has_echo = body.flag("echo")
    asked = _read_shared(body, body.whole("max_tokens", least=0), body.whole("logprobs", least=0, most=_MOST_LIKELIEST))
    if has_echo and asked.is_streamed:
        raise invalid("echo", "Unsupported value: 'echo' cannot be combined with 'stream'.", "unsupported_value")
    return AskedCompletion(asked, _prompts(body), has_echo)


def _limit(body: Body) -> int | None:
    """The most tokens of an answer to a chat, by its new or its old name."""
    limits = {body.whole(name, least=1) for name in ("max_completion_tokens", "max_tokens")} - {None}
    if len(limits) > 1:
        raise invalid(
            "max_tokens",
            "Invalid 'max_tokens': it differs from 'max_completion_tokens', which means the same. Send one of them.",
            "invalid_value",
        )
    return next(iter(limits), None)


def _read_shared(body: Body, max_tokens: int | None, num_likeliest: int | None) -> Asked:
    for name, neutral in _UNSUPPORTED.items():
        value = body.get(name)
        if value is not None and not any(_is_same(value, each) for each in neutral):
            raise invalid(
                name, f"Unsupported parameter: '{name}' is not supported by this server.", "unsupported_value"
            )
    for name in _IGNORED:
        if body.get(name) is not None:
            body.text(name)
    _check_metadata(body)
    options = body.get("stream_options")
    is_streamed = body.flag("stream")
    if options is not None:
        if not isinstance(options, dict):
            body.wrong_type("stream_options", "an object")
        if not is_streamed:
            raise invalid("stream_options", "Invalid 'stream_options': set 'stream' to true as well.", "invalid_value")
    inner = Body(options or {}, "stream_options.")
    inner.refuse_unknown(("include_usage", "include_obfuscation"))
    top_p = body.number("top_p", 1.0, least=0, most=1)
    temperature = body.number("temperature", 1.0, least=0, most=2)
    return Asked(
        model=body.text("model"),
        temperature=temperature if top_p > 0 else 0.0,  # only the likeliest token makes up no share at all
        top_p=top_p or 1.0,
        max_tokens=max_tokens,
        stop=_stop(body),
        seed=body.whole("seed"),
        num_choices=body.whole("n", least=1, most=_MOST_CHOICES) or 1,
        num_likeliest=num_likeliest,
        is_streamed=is_streamed,
        has_usage=inner.flag("include_usage"),
    )


def _check_metadata(body: Body) -> None:
    """Refuse notes of the client that are not texts by name. They do not affect the answer."""
    notes = body.get("metadata")
    if notes is not None and not (isinstance(notes, dict) and all(isinstance(each, str) for each in notes.values())):
        body.wrong_type("metadata", "an object of strings")


def _is_same(value: Any, other: Any) -> bool:
    """Whether two JSON values are equal; Python takes `false` for 0."""
    return value == other and isinstance(value, bool) is isinstance(other, bool)


def _stop(body: Body) -> tuple[str, ...]:
    value = body.get("stop")
    strings = [value] if isinstance(value, str) else value if value is not None else []
    if not isinstance(strings, list) or not all(isinstance(each, str) for each in strings):
        body.wrong_type("stop", "a string or an array of strings")
    body.check_length("stop", strings, _MOST_STOPS)
    if "" in strings:
        raise invalid("stop", "Invalid 'stop': empty string. Expected at least one character.", "empty_string")
    return tuple(body.unicode("stop", each) for each in dict.fromkeys(strings))


def _turns(body: Body) -> tuple[Message, ...]:
    messages = body.required("messages")
    if not isinstance(messages, list):
        body.wrong_type("messages", "an array of objects")
    if not messages:
        raise invalid("messages", "Invalid 'messages': empty array. Expected at least one message.", "empty_array")
    body.check_length("messages", messages, _MOST_MESSAGES)
    turns = [_turn(message, f"messages[{index}]") for index, message in enumerate(messages)]
    _check_ends(turns)
    told = [turn for turn in turns if turn.role is not Role.ASSISTANT or not is_empty_answer(turn.content)]
    try:
        merged, _ = arranged(told, TurnRules(consecutive="merge"))
    except UserError as error:
        raise invalid("messages", f"Invalid 'messages': {reason_for_client(error)}", "invalid_value") from None
    for place, turn in enumerate(merged):
        if turn.role is Role.SYSTEM and place > 0:
            raise _misplaced("a system message after other messages; expected it first.")
    return merged


def _check_ends(turns: Sequence[Message]) -> None:
    """Refuse conversations that do not begin and end with the user, apart from system messages."""
    spoken = [turn.role for turn in turns if turn.role is not Role.SYSTEM]
    if not spoken or spoken[-1] is not Role.USER:
        raise _misplaced("the last message is not the user's; expected the message to answer.")
    if spoken[0] is not Role.USER:
        raise _misplaced("the conversation begins with an answer; expected a message of the user.")


def _misplaced(what: str) -> Exception:
    return invalid("messages", f"Invalid 'messages': {what}", "invalid_value")


_ROLES = {"system": Role.SYSTEM, "developer": Role.SYSTEM, "user": Role.USER, "assistant": Role.ASSISTANT}


def _turn(message: Any, place: str) -> Message:
    if not isinstance(message, dict):
        raise invalid(place, f"Invalid type for '{place}': expected an object.", "invalid_type")
    fields = Body(message, f"{place}.")
    role = fields.text("role")
    if role not in _ROLES:
        raise invalid(
            f"{place}.role",
            f"Invalid value: {role[:40]!a}. Supported values are: 'system', 'developer', 'user' and 'assistant'.",
            "invalid_value",
        )
    # clients send earlier answers back as they got them, with fields that are null or empty
    for name in ("tool_calls", "function_call", "audio"):
        if fields.get(name):
            shown = f"{place}.{name}"
            raise invalid(
                shown, f"Unsupported parameter: '{shown}' is not supported by this server.", "unsupported_value"
            )
    known = ("role", "content", "name", "refusal", "tool_calls", "function_call", "audio", "annotations")
    fields.refuse_unknown(known)
    content = fields.required("content")
    text = _joined(content, place) if isinstance(content, list) else fields.text("content")
    if not text.strip() and role == "user":  # answers may be empty
        shown = f"{place}.content"
        raise invalid(
            shown,
            f"Invalid '{shown}': {'only white space' if text else 'empty string'}. Expected text.",
            "empty_string",
        )
    return Message(_ROLES[role], text)


def _joined(parts: list[Any], place: str) -> str:
    """The text of a content that comes in parts."""
    texts = []
    for index, part in enumerate(parts):
        shown = f"{place}.content[{index}]"
        if not isinstance(part, dict):
            raise invalid(shown, f"Invalid type for '{shown}': expected an object.", "invalid_type")
        fields = Body(part, f"{shown}.")
        kind = fields.text("type")
        if kind != "text":
            raise invalid(
                f"{shown}.type",
                f"Invalid value: {kind[:40]!a}. Supported values are: 'text'; the models of this server read nothing "
                "else.",
                "invalid_value",
            )
        texts.append(fields.text("text"))
    return "".join(texts)


def _prompts(body: Body) -> tuple[str | list[int], ...]:
    value = body.required("prompt")
    expected = "a string, an array of strings, an array of token ids, or an array of arrays of token ids"
    if isinstance(value, str) or _are_ids(value):
        value = [value]
    is_list = isinstance(value, list) and bool(value)
    if not is_list or not (all(isinstance(each, str) for each in value) or all(_are_ids(each) for each in value)):
        body.wrong_type("prompt", expected)
    body.check_length("prompt", value, _MOST_PROMPTS)
    return tuple(body.unicode("prompt", each) if isinstance(each, str) else each for each in value)


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(each) is int for each in value)
