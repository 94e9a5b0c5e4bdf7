"""Reads one message of a conversation: its role, its text, its thinking and calls, and how much it is trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from data_modules.errors import UserError
from data_modules.records.conversation import Message, Role
from data_modules.records.field_values import is_given, text
from data_modules.records.known_fields import ONLY_TEXT, WEIGHTS
from data_modules.records.thinking import thinking_of
from data_modules.records.tools import calls_in, calls_of, split_calls, split_results
from data_modules.wording import kind_of

ROLES = {
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
    "user": Role.USER,
    "human": Role.USER,
    "assistant": Role.ASSISTANT,
    "gpt": Role.ASSISTANT,
    "tool": Role.TOOL,
    "function": Role.TOOL,
    "observation": Role.TOOL,
    "ipython": Role.TOOL,
    "tool_response": Role.TOOL,
    "function_call": Role.ASSISTANT,
    "tool_call": Role.ASSISTANT,
}

_CALLING_ROLES = ("function_call", "tool_call")
"""Roles of an assistant message whose content is a call as JSON text: LLaMA-Factory's and others'."""

_SPECIAL_ROLES = {*_CALLING_ROLES, *(name for name, role in ROLES.items() if role is Role.TOOL)}

_WEIGHTS = frozenset(WEIGHTS)

_TEXT_TYPES = ("text", "input_text", "output_text")
_THINKING_TYPES = ("thinking", "reasoning")
_PART_FIELDS = ("type", "text", "value", "annotations", "cache_control", "id", "index", "signature")
"""Fields of a text part; any other that has a value is refused."""

_CALLS_IN_PARTS = "a tool call is read from the field `tool_calls` of its message"
_REFUSED_TYPES = {
    "tool": _CALLS_IN_PARTS,
    "function": _CALLS_IN_PARTS,
    **dict.fromkeys(("image", "audio", "video", "file"), ONLY_TEXT),
}
"""Words in the type of a part that is not text, and why such parts are refused."""


def keys_of_messages(items: Any, role_key: str, content_key: str) -> tuple[str, str]:
    """The names of the role and the content in a list of messages: both spellings occur under either field.

    Args:
        items: The list, or any other value.
        role_key: The usual name of the role.
        content_key: The usual name of the content.
    """
    first = items[0] if isinstance(items, list) and items else None
    if isinstance(first, dict) and role_key not in first:
        for keys in (("role", "content"), ("from", "value")):
            if keys[0] in first:
                return keys
    return role_key, content_key


def named_turns(items: Iterable[Any], field: str, role_key: str, content_key: str) -> list[Message]:
    """Read a list of messages, each with a role and a content.

    Args:
        items: The list.
        field: Name of its field, for error messages.
        role_key: Name of the role's field.
        content_key: Name of the content's field.

    Raises:
        UserError: If a message has no role or content, an unknown role, or a field that is not supported.
    """
    turns: list[Message] = []
    for index, item in enumerate(items):
        is_message = isinstance(item, dict) and role_key in item
        if not is_message or not (content_key in item or is_given(item.get("tool_calls") or item.get("function_call"))):
            raise UserError(
                f"{field}[{index}]{missing_field(item, role_key, content_key)}; expected an object "
                f"with '{role_key}' and '{content_key}'."
            )
        given = item[role_key]
        role = ROLES.get(given) if isinstance(given, str) else None
        if role is None:
            raise _role_error(given, f"{field}[{index}].{role_key}")
        if len(item) == 2 and isinstance(item.get(content_key), str) and given not in _SPECIAL_ROLES:
            turns.append(Message(role, item[content_key]))
        else:
            turns += _messages(item, role, given, content_key, f"{field}[{index}]")
    return _with_calls_split_off(turns) if any(turn.role is Role.TOOL for turn in turns) else turns


def missing_field(item: Any, *names: str) -> str:
    """Why a turn is not an object with these fields."""
    if not isinstance(item, dict):
        return f" is {kind_of(item)}"
    return f" has no field '{next(name for name in names if name not in item)}'"


def weight_of(item: Mapping[str, Any], role: Role, place: str) -> float:
    """How much a message counts in the loss, 0 to 1; 1 for messages that are never trained.

    Args:
        item: The message.
        role: Its role.
        place: Where it is, for error messages.

    Raises:
        UserError: If a weight is not between 0 and 1, two weights differ, or a prompt is to be trained.
    """
    if _WEIGHTS.isdisjoint(item):
        return 1.0
    weights = {name: _weight(item[name], f"{place}.{name}") for name in WEIGHTS if is_given(item.get(name))}
    if len(set(weights.values())) > 1:
        raise UserError(f"{place}: {' and '.join(weights)} contradict each other; keep one of them.")
    if role is Role.ASSISTANT:
        return next(iter(weights.values()), 1.0)
    for name in (name for name, weight in weights.items() if weight):
        raise UserError(
            f"{place}.{name} is {kind_of(item[name])}, but the message is the {role}'s; only the assistant's messages "
            "can be selected for training. Remove the field or use `--data.prompt_weight`, or set "
            "`--data.on_invalid drop`."
        )
    return 1.0


def _weight(value: Any, place: str) -> float:
    if isinstance(value, (str, list, dict)) or not 0 <= value <= 1:
        raise UserError(f"{place} is {kind_of(value)}; expected a number from 0 to 1, or true or false.")
    return float(value)


def _role_error(given: Any, place: str) -> UserError:
    shown = repr(given[:40]) if isinstance(given, str) else kind_of(given)
    return UserError(f"{place} is {shown}; expected one of {', '.join(ROLES)}.")


def _messages(item: Mapping[str, Any], role: Role, given: str, content_key: str, place: str) -> Iterator[Message]:
    """A message with other fields than its role and content; several if it has the results of several tools."""
    thinking, content = _content(item, content_key, role, place)
    calls = calls_of(item, role, place)
    if role is Role.TOOL:
        call_id, name = (value if isinstance(value := item.get(key), str) else "" for key in ("tool_call_id", "name"))
        weight_of(item, role, place)
        yield from (Message(role, result, call_id=call_id, name=name) for result in split_results(content))
        return
    if given in _CALLING_ROLES:
        content, calls = "", calls + calls_in(content, f"{place}.{content_key}")
    in_fields = thinking_of(item, role, place)
    if thinking and in_fields:
        raise UserError(f"{place} has thinking both in a field and in its content; expected one of the two.")
    yield Message(role, content, weight=weight_of(item, role, place), thinking=in_fields or thinking, tool_calls=calls)


def _with_calls_split_off(turns: list[Message]) -> list[Message]:
    """Messages with the calls in their text as calls, in a conversation with results of tools."""
    split = []
    for turn in turns:
        content, calls = split_calls(turn.content) if turn.role is Role.ASSISTANT else (turn.content, ())
        split.append(replace(turn, content=content, tool_calls=calls) if calls and not turn.tool_calls else turn)
    return split


def _content(item: Mapping[str, Any], key: str, role: Role, place: str) -> tuple[str, str]:
    """The thinking in a content, and its text."""
    value = item.get(key)
    if isinstance(value, list):
        return _parts(value, f"{place}.{key}", role)
    # an empty system message is dropped later; beside a call, and as the result of a tool, there may be no text
    optional = role in (Role.SYSTEM, Role.TOOL) or is_given(item.get("tool_calls") or item.get("function_call"))
    return "", text(item, key, optional=optional, place=place)


def _parts(parts: list[Any], place: str, role: Role) -> tuple[str, str]:
    """The thinking and the text of a list of parts; templates join parts without anything between them."""
    thinking, content = "", ""
    for index, part in enumerate(parts):
        if not isinstance(part, Mapping):
            raise UserError(f"{place}[{index}] is {kind_of(part)}; expected an object with 'type' and 'text'.")
        if part.get("type") not in _THINKING_TYPES:
            content += _part(part, f"{place}[{index}]")
        elif role is not Role.ASSISTANT or content or thinking:
            raise UserError(
                f"{place}[{index}].type is {part['type']!r}; only an assistant's message can have thinking, once and "
                "before its text. Correct the record, or set `--data.on_invalid drop`."
            )
        else:
            thinking = _thinking(part, part["type"], f"{place}[{index}]").strip("\n")
    return thinking, content


def _thinking(part: Mapping[str, Any], kind: str, place: str) -> str:
    """The text of a part that is thinking, in a field named like its type, or as in a text part."""
    value = part.get(kind)
    if isinstance(value, list):
        return "".join(_part(each, f"{place}.{kind}[{index}]") for index, each in enumerate(value))
    return text(part, kind, place=place) if value is not None else _text(part, place)


def _part(part: Any, place: str) -> str:
    """The text of one part of a content."""
    kind = part.get("type")
    if kind not in _TEXT_TYPES:
        why = next((reason for word, reason in _REFUSED_TYPES.items() if word in str(kind)), "")
        shown = repr(kind[:40]) if isinstance(kind, str) else kind_of(kind)
        raise UserError(f"{place}.type is {shown}; {why or 'expected text'}.")
    for name in part:
        if name not in _PART_FIELDS and is_given(part[name]):
            raise UserError(f"{place}.{name} is {kind_of(part[name])}; {ONLY_TEXT}.")
    return _text(part, place)


def _text(part: Mapping[str, Any], place: str) -> str:
    return text(part, "text" if "text" in part and part["text"] is not None else "value", place=place)
