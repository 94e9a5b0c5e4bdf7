"""Ollama's Modelfile: which file to load, and the chat template in Ollama's own language (Go's text/template)."""

from __future__ import annotations

import json
import re

from data_modules.rendering.templates import AnyTemplate, Template

_MORE = "gt (len (slice $.Messages $i)) 1"


def modelfile_of(template: AnyTemplate, model: str) -> str:
    """The Modelfile of a model.

    Args:
        template: The template that the model was trained with.
        model: Name of the GGUF file beside it.
    """
    lines = [f"FROM ./{model}"]
    if isinstance(template, Template):
        lines.append(f'TEMPLATE """{_go_template(template)}"""')
    else:
        lines.append(
            "# The chat template in the GGUF file is the tokenizer's own. Ollama does not run it: it recognises"
        )
        lines.append(
            "# common ones by their text. Check `ollama show --template` and set TEMPLATE here if it is another."
        )
    lines.append(f"PARAMETER stop {json.dumps(template.end, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


def _go_template(template: Template) -> str:
    """The template for the roles system, user and assistant. An answer at the end is continued."""
    assert template.end is not None
    system = _filled(template.system, ".System")
    user, end = _filled(template.user, ".Content"), _printed(template.end + template.between)
    return (
        f"{{{{ if .System }}}}{system}{{{{ else }}}}{_printed(template.opening)}{{{{ end }}}}"
        "{{ range $i, $_ := .Messages }}"
        f'{{{{ if eq .Role "user" }}}}{user}'
        f'{{{{ else if eq .Role "assistant" }}}}{{{{ .Content }}}}{{{{ if {_MORE} }}}}{end}{{{{ end }}}}'
        "{{ end }}{{ end }}"
    )


def _filled(pattern: str, value: str) -> str:
    parts = re.split(r"(\{system\}|\{user\})", pattern)
    return "".join(f"{{{{ {value} }}}}" if part in ("{system}", "{user}") else _printed(part) for part in parts)


def _printed(text: str) -> str:
    # JSON's escapes are also Go's
    return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}" if text else ""
