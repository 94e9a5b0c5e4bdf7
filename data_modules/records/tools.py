"""Tools: the functions that a record describes, and how the assistant calls them.

Everything is kept as JSON text in one spelling, so that records of different formats with the same tools are equal, and
so that a template's `tojson` writes the same text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from data_modules.errors import UserError
from data_modules.records.conversation import Role, ToolCall
from data_modules.records.field_values import is_given
from data_modules.wording import kind_of

TOOLS = frozenset(("tools", "functions"))
"""Fields of a record with the functions that the assistant may call; the second is the older name."""

_ADVICE = "Correct the record, or set `--data.on_invalid drop`."

_OPENING, _CLOSING = "<tool_call>\n", "\n</tool_call>"
_RESULT = re.compile(r"<tool_response>\n?(.*?)\n?</tool_response>\s*", re.DOTALL)


def json_text(value: Any) -> str:
    """A JSON value in the spelling of transformers' `tojson`."""
    return json.dumps(value, ensure_ascii=False)


def tools_of(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """The functions described in a record's `tools`, or in `functions`, the older name.

    Both may be a list or the same as JSON text. A function is {"name": ...}, or that inside {"type": "function",
    "function": ...}; the result always has the second form.

    Raises:
        UserError: If the description cannot be read.
    """
    for name in sorted(TOOLS, reverse=True):
        if is_given(value := fields.get(name)):
            found = _parsed(value, f"field '{name}'", "a list of functions") if isinstance(value, str) else value
            if not is_given(found):
                continue
            items = [found] if isinstance(found, dict) else found
            if not isinstance(items, (list, tuple)):
                raise UserError(f"field '{name}' is {kind_of(found)}; expected a list of functions. {_ADVICE}")
            return tuple(_tool(item, f"{name}[{index}]") for index, item in enumerate(items))
    return ()


def calls_of(item: Mapping[str, Any], role: Role, place: str) -> tuple[ToolCall, ...]:
    """The calls in an assistant message's `tool_calls`, or in `function_call`, the older name.

    Args:
        item: The message.
        role: Its role.
        place: Where it is, for error messages.

    Raises:
        UserError: If a call cannot be read, another role calls, or both fields are given.
    """
    calls, old = item.get("tool_calls"), item.get("function_call")
    if is_given(calls) and is_given(old):
        raise UserError(f"{place}: both tool_calls and function_call are given; expected one of them. {_ADVICE}")
    if role is not Role.ASSISTANT and (is_given(calls) or is_given(old)):
        name = "tool_calls" if is_given(calls) else "function_call"
        raise UserError(
            f"{place}.{name} is given, but the message is the {role}'s; only the assistant's messages have calls. "
            f"{_ADVICE}"
        )
    if is_given(old):
        return (_call(old, f"{place}.function_call"),)
    if not is_given(calls):
        return ()
    if isinstance(calls, str):
        calls = _parsed(calls, f"{place}.tool_calls", "a list of calls")
    if not isinstance(calls, list):
        raise UserError(f"{place}.tool_calls is {kind_of(calls)}; expected a list of calls. {_ADVICE}")
    return tuple(_call(call, f"{place}.tool_calls[{index}]") for index, call in enumerate(calls))


def calls_in(content: str, place: str) -> tuple[ToolCall, ...]:
    """The calls in a content that is nothing but JSON: one call, or a list of them.

    Raises:
        UserError: If it is not.
    """
    found = _parsed(content, place, "a function call")
    return tuple(_call(call, place) for call in (found if isinstance(found, list) else [found]))


def split_calls(content: str) -> tuple[str, tuple[ToolCall, ...]]:
    """A content that ends with calls in the style of Hermes and Qwen, as the text before them and the calls.

    Calls are split off only if our templates write them back exactly as they are. Otherwise they stay in the text.
    """
    start = content.find(_OPENING)
    if start < 0 or not content.endswith(_CLOSING):
        return content, ()
    before = content[:start].removesuffix("\n")
    blocks = content[start + len(_OPENING) : -len(_CLOSING)].split(f"{_CLOSING}\n{_OPENING}")
    try:
        calls = tuple(_call(_parsed(block, "", ""), "") for block in blocks)
    except UserError:
        return content, ()
    written = [before] * bool(before) + [f"{_OPENING}{call_text(call)}{_CLOSING}" for call in calls]
    return (before, calls) if "\n".join(written) == content else (content, ())


def split_results(content: str) -> list[str]:
    """The results in a tool's message in the style of Hermes and Qwen, without their markers; else the content."""
    text = content.strip()
    if not (text.startswith("<tool_response>") and text.endswith("</tool_response>")):
        return [content]
    results = _RESULT.findall(text)
    return results if not _RESULT.sub("", text) else [content]


def call_text(call: ToolCall) -> str:
    """A call as JSON text."""
    return f'{{"name": {json_text(call.name)}, "arguments": {call.arguments}}}'


def _tool(item: Any, place: str) -> str:
    function = item.get("function", item) if isinstance(item, dict) else item
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise UserError(
            f"{place} is {kind_of(item)}{' without a name' if isinstance(item, dict) else ''}; expected a function, an "
            f"object with 'name'. {_ADVICE}"
        )
    return json_text(item if "function" in item else {"type": "function", "function": item})


def _call(call: Any, place: str) -> ToolCall:
    function = call.get("function", call) if isinstance(call, dict) else call
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise UserError(
            f"{place} is {kind_of(call)}{' without a name' if isinstance(call, dict) else ''}; expected a call, an "
            f"object with 'name' and 'arguments'. {_ADVICE}"
        )
    field = "arguments" if "arguments" in function else "parameters"
    arguments, where = function.get(field), f"{place}{'' if function is call else '.function'}.{field}"
    if isinstance(arguments, str):
        arguments = _parsed(arguments or "{}", where, "a JSON object")
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise UserError(f"{where} is {kind_of(arguments)}; expected a JSON object. {_ADVICE}")
    given = call.get("id")
    return ToolCall(function["name"], json_text(arguments), given if isinstance(given, str) else "")


def _parsed(value: str, place: str, expected: str) -> Any:
    try:
        return json.loads(value, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise UserError(f"{place} is {kind_of(value)}; expected {expected} as JSON. {_ADVICE}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
