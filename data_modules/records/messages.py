"""Reads one message of a conversation: its role, its text, and whether it is trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from data_modules.errors import UserError
from data_modules.records.conversation import Message, Role
from data_modules.records.field_values import is_given, text
from data_modules.records.known_fields import ONLY_TEXT, REASONING, TOOLS, WEIGHTS
from data_modules.wording import kind_of

ROLES = {
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
    "user": Role.USER,
    "human": Role.USER,
    "assistant": Role.ASSISTANT,
    "gpt": Role.ASSISTANT,
}

_WEIGHTS = frozenset(WEIGHTS)
_TOOL_ROLES = ("tool", "function", "observation", "ipython", "function_call", "tool_call", "tool_response")

_TEXT_TYPES = ("text", "input_text", "output_text")
_PART_FIELDS = ("type", "text", "value", "annotations", "cache_control", "id", "index")
"""Fields of a text part; any other that has a value is refused."""

_REFUSED_TYPES = {
    "tool": TOOLS,
    "function": TOOLS,
    "thinking": REASONING,
    "reasoning": REASONING,
    **dict.fromkeys(("image", "audio", "video", "file"), ONLY_TEXT),
}
"""Words in the type of a part that is not text, and why such parts are refused."""


def named_turns(items: Iterable[Any], field: str, role_key: str, content_key: str) -> list[Message]:
    """Read a list of messages, each with a role and a content.

    Args:
        items: The list.
        field: Name of its field, for error messages.
        role_key: Name of the role's field.
        content_key: Name of the content's field.

    Raises:
        UserError: If a message has no role or content, an unknown role, or a content or weight that is not supported.
    """
    turns = []
    for index, item in enumerate(items):
        if not isinstance(item, dict) or not {role_key, content_key} <= item.keys():
            raise UserError(
                f"{field}[{index}]{missing_field(item, role_key, content_key)}; expected an object "
                f"with '{role_key}' and '{content_key}'."
            )
        given, content = item[role_key], item[content_key]
        role = ROLES.get(given) if isinstance(given, str) else None
        if role is None:
            raise _role_error(given, f"{field}[{index}].{role_key}")
        if not isinstance(content, str):
            content = _content(item, content_key, role, f"{field}[{index}]")
        turns.append(Message(role, content, is_trained=is_trained(item, role, f"{field}[{index}]")))
    return turns


def missing_field(item: Any, *names: str) -> str:
    """Why a turn is not an object with these fields."""
    if not isinstance(item, dict):
        return f" is {kind_of(item)}"
    return f" has no field '{next(name for name in names if name not in item)}'"


def is_trained(item: Mapping[str, Any], role: Role, place: str) -> bool:
    """Whether a message may be trained, from its weight if it has one; True for messages that are never trained.

    Args:
        item: The message.
        role: Its role.
        place: Where it is, for error messages.

    Raises:
        UserError: If a weight is neither 0 nor 1, two weights differ, or a prompt is to be trained.
    """
    if _WEIGHTS.isdisjoint(item):
        return True
    weights = {name: _weight(item[name], f"{place}.{name}") for name in WEIGHTS if is_given(item.get(name))}
    if len(set(weights.values())) > 1:
        raise UserError(f"{place}: {' and '.join(weights)} contradict each other; keep one of them.")
    if role is Role.ASSISTANT:
        return all(weights.values())
    for name in (name for name, weight in weights.items() if weight):
        raise UserError(
            f"{place}.{name} is {kind_of(item[name])}, but the message is the {role}'s; only the assistant's messages "
            "can be selected for training. Remove the field, use `--data.prompt_weight`, or set "
            "`--data.on_invalid drop`."
        )
    return True


def _weight(value: Any, place: str) -> bool:
    if isinstance(value, (str, list, dict)) or value not in (0, 1):
        is_between = not isinstance(value, (str, list, dict)) and 0 < value < 1
        why = "weights between 0 and 1 are not supported yet; " if is_between else ""
        raise UserError(f"{place} is {kind_of(value)}; {why}expected 0 or 1, or true or false.")
    return bool(value)


def _role_error(given: Any, place: str) -> UserError:
    if given in _TOOL_ROLES:
        return UserError(f"{place} is {given!r}; {TOOLS}. Remove the record, or set `--data.on_invalid drop`.")
    shown = repr(given[:40]) if isinstance(given, str) else kind_of(given)
    return UserError(f"{place} is {shown}; expected one of {', '.join(ROLES)}.")


def _content(item: Mapping[str, Any], key: str, role: Role, place: str) -> str:
    value = item[key]
    if isinstance(value, list):
        return "".join(_part(part, f"{place}.{key}[{index}]") for index, part in enumerate(value))
    # an empty system message is dropped later
    return text(item, key, optional=role is Role.SYSTEM)


def _part(part: Any, place: str) -> str:
    """The text of one part of a content; templates join parts without anything between them."""
    if not isinstance(part, Mapping):
        raise UserError(f"{place} is {kind_of(part)}; expected an object with 'type' and 'text'.")
    kind = part.get("type")
    if kind not in _TEXT_TYPES:
        why = next((reason for word, reason in _REFUSED_TYPES.items() if word in str(kind)), "")
        shown = repr(kind[:40]) if isinstance(kind, str) else kind_of(kind)
        raise UserError(f"{place}.type is {shown}; {why or 'expected text'}.")
    for name in part:
        if name not in _PART_FIELDS and is_given(part[name]):
            raise UserError(f"{place}.{name} is {kind_of(part[name])}; {ONLY_TEXT}.")
    return text(part, "text" if "text" in part and part["text"] is not None else "value")
