"""Our templates as Jinja, so that an exported tokenizer's `apply_chat_template` renders what was trained."""

from __future__ import annotations

import json

from data_modules.templates import Template


def jinja_of(template: Template, *, bos: bool = False) -> str:
    """The Jinja chat template that renders messages as `template.render` does, context aside.

    Messages have no field for context: what stood in one is part of the user's message.

    Args:
        template: Whose end is filled in.
        bos: Whether documents begin with the tokenizer's bos.
    """
    assert template.end is not None
    system, user = template.system.split("{system}"), template.user.split("{user}")
    parts = [
        "{{- bos_token -}}" if bos else "",
        "{%- if messages[0]['role'] == 'system' -%}",
        _print(system[0], "messages[0]['content']", system[1]),
        "{%- else -%}",
        _print(template.opening),
        "{%- endif -%}",
        "{%- for message in messages -%}",
        "{%- if message['role'] == 'user' -%}",
        _print(user[0], "message['content']", user[1]),
        "{%- elif message['role'] == 'assistant' -%}",
        _print("", "message['content']", template.end),
        "{%- if loop.last -%}" + _print(template.closing) + "{%- else -%}" + _print(template.between) + "{%- endif -%}",
        "{%- endif -%}",
        "{%- endfor -%}",
    ]
    return "".join(parts)


def _print(before: str, value: str | None = None, after: str = "") -> str:
    """A Jinja expression that prints literal text around a value."""
    pieces = [json.dumps(before), *([value] if value else []), json.dumps(after)]
    return "{{- " + " + ".join(pieces) + " -}}"
