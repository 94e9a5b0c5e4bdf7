"""Converts our templates to Jinja, so that an exported tokenizer's `apply_chat_template` renders the trained text."""

from __future__ import annotations

import json
import re

from data_modules.rendering.jinja_source import INPUT_KEY
from data_modules.rendering.templates import Template

_FIRST, _MESSAGE = "messages[0]", "message"


def jinja_of(template: Template, *, bos: bool = False) -> str:
    """The Jinja chat template that renders messages like `template.render`.

    A user message may have an `input` besides its `content`, as in Alpaca's records: {"role": "user", "content":
    "Translate.", "input": "Bonjour"}.

    Args:
        template: A template with its end token filled in.
        bos: Whether documents start with the tokenizer's bos.
    """
    assert template.end is not None
    closing, between = _print(template.closing), _print(template.between)
    parts = [
        "{{- bos_token -}}" if bos else "",
        _if(f"{_FIRST}['role'] == 'system'", _fill(template.system, _FIRST), _opening(template)),
        "{%- for message in messages -%}",
        _if(f"{_MESSAGE}['role'] == 'user'", _user(template)),
        "{%- if message['role'] == 'assistant' -%}",
        _print_all(f"{_MESSAGE}['content']", _literal(template.end)),
        _if("loop.last", closing, between),
        "{%- endif -%}",
        "{%- endfor -%}",
    ]
    return "".join(parts)


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
    values = {"{system}": "content", "{user}": "content", "{context}": INPUT_KEY}
    parts = [part for part in re.split(r"(\{system\}|\{user\}|\{context\})", pattern) if part]
    return _print_all(*(f"{message}['{values[part]}']" if part in values else _literal(part) for part in parts))


def _print_all(*expressions: str) -> str:
    return "{{- " + " + ".join(expressions) + " -}}"


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # Jinja reads an escaped surrogate pair as two characters
