"""Converts our templates to Jinja, so that an exported tokenizer's `apply_chat_template` renders the trained text."""

from __future__ import annotations

import json
import re

from data_modules.records.thinking import CLOSING, OPENING
from data_modules.rendering.jinja_source import INPUT_KEY
from data_modules.rendering.templates import Template, ToolStyle

_FIRST, _MESSAGE = "messages[0]", "message"
_THINKING = "message['reasoning_content']"
_BREAK = "\n"
_TOOL_LINES = (
    '{%- set lines = namespace(text="") -%}{%- for tool in tools -%}'
    '{%- set lines.text = lines.text + ("" if loop.first else "\\n") + (tool | tojson) -%}{%- endfor -%}'
)


def jinja_of(template: Template, *, bos: bool = False) -> str:
    """The Jinja chat template that renders messages like `template.render`.

    A user message may have an `input` besides its `content`, as in Alpaca's records: {"role": "user", "content":
    "Translate.", "input": "Bonjour"}. An assistant message may have `reasoning_content`, and, if the template can write
    tools, `tool_calls`; their arguments are an object, or the same as JSON text.

    Args:
        template: A template with its end token filled in.
        bos: Whether documents start with the tokenizer's bos.
    """
    assert template.end is not None
    closing, between = _print(template.closing), _print(template.between)
    parts = [
        "{{- bos_token -}}" if bos else "",
        _beginning(template),
        "{%- for message in messages -%}",
        _if(f"{_MESSAGE}['role'] == 'user'", _user(template)),
        _if(f"{_MESSAGE}['role'] == 'tool'", _result(template)),
        "{%- if message['role'] == 'assistant' -%}",
        _if(_THINKING, _print_all(_literal(OPENING), f"{_THINKING}.strip({_literal(_BREAK)})", _literal(CLOSING))),
        _if(f"{_MESSAGE}['content']", _print_all(f"{_MESSAGE}['content']")),
        _calls(template.tools) if template.tools else _if(f"{_MESSAGE}['tool_calls']", _no_tools(template)),
        _print(template.end),
        _if("loop.last", closing, between),
        "{%- endif -%}",
        "{%- endfor -%}",
    ]
    return "".join(parts)


def _beginning(template: Template) -> str:
    usual = _if(f"{_FIRST}['role'] == 'system'", _fill(template.system, _FIRST), _opening(template))
    if template.tools is None:
        return _if("tools", _no_tools(template)) + usual
    system, opening = (_fill(text, _FIRST) for text in (template.tools.system, template.tools.opening))
    return _if("tools", _TOOL_LINES + _if(f"{_FIRST}['role'] == 'system'", system, opening), usual)


def _result(template: Template) -> str:
    """A tool's result, and around several of them the text that opens and closes their turn."""
    if template.tools is None:
        return _no_tools(template)
    first, following = (_fill(text, _MESSAGE) for text in (template.tools.first_result, template.tools.next_result))
    is_next = "not loop.first and messages[loop.index0 - 1]['role'] == 'tool'"
    is_last = "loop.last or messages[loop.index0 + 1]['role'] != 'tool'"
    return _if(is_next, following, first) + _if(is_last, _print(template.tools.after_results))


def _calls(style: ToolStyle) -> str:
    before, after = style.call.split("{call}")
    arguments = "call['arguments']"
    return (
        f"{{%- if {_MESSAGE}['tool_calls'] -%}}{{%- for each in {_MESSAGE}['tool_calls'] -%}}"
        "{%- set call = each['function'] or each -%}"
        + _if(f"not loop.first or {_MESSAGE}['content']", _print(_BREAK))
        + _print_all(_literal(before + '{"name": '), "call['name'] | tojson", _literal(', "arguments": '))
        + _if(f"{arguments} is string", _print_all(arguments), _print_all(f"{arguments} | tojson"))
        + _print("}" + after)
        + "{%- endfor -%}{%- endif -%}"
    )


def _no_tools(template: Template) -> str:
    return "{{- raise_exception(" + _literal(f"The template '{template.name}' cannot write tools.") + ") -}}"


def _opening(template: Template) -> str:
    return _with_input(_FIRST, _print(template.opening_with_context), _print(template.opening))


def _user(template: Template) -> str:
    return _with_input(_MESSAGE, _fill(template.user_with_context, _MESSAGE), _fill(template.user, _MESSAGE))


def _with_input(message: str, given: str, missing: str) -> str:
    return missing if given == missing else _if(f"{message}['{INPUT_KEY}']", given, missing)


def _if(condition: str, then: str, otherwise: str = "") -> str:
    return "{%- if " + condition + " -%}" + then + ("{%- else -%}" + otherwise if otherwise else "") + "{%- endif -%}"


def _print(text: str) -> str:
    return _print_all(_literal(text)) if text else ""


def _fill(pattern: str, message: str) -> str:
    """Print a pattern such as "User: {user}", filled in from a message."""
    values = dict.fromkeys(("{system}", "{user}", "{result}"), f"{message}['content']")
    values |= {"{context}": f"{message}['{INPUT_KEY}']", "{tools}": "lines.text"}
    parts = filter(None, re.split(r"(\{system\}|\{user\}|\{context\}|\{tools\}|\{result\})", pattern))
    return _print_all(*(values.get(part, _literal(part)) for part in parts))


def _print_all(*expressions: str) -> str:
    return "{{- " + " + ".join(expressions) + " -}}"


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # Jinja reads an escaped surrogate pair as two characters
