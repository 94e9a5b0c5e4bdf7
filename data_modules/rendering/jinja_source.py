"""The text of a chat template, a Jinja program: which one is used, with which date and arguments.

An exported tokenizer must render what was trained, so everything that changes the result is written into the program.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from data_modules.errors import UserError

Argument = bool | int | float | str

DEFAULT_DATE = "2025-01-01"
"""The date for templates that print today's, so that data does not depend on the day it is encoded."""

INPUT_KEY = "input"
"""The field for a user message's context in exported chat templates."""

_CLOCK = re.compile(r"""strftime_now\(\s*(["'])(?P<format>[^"'\\]*)\1\s*\)""")
_HAS_CLOCK = re.compile(r"strftime_now\s+is\s+(?P<no>not\s+)?defined")
_NAME = re.compile(r"[A-Za-z_]\w*")

_JOINS_INPUT = (
    "{%- set joined = namespace(messages=[]) %}{%- for message in messages %}"
    "{%- if message['" + INPUT_KEY + "'] %}"
    "{%- set joined.messages = joined.messages + "
    "[dict(message, content=message['content'] + '\\n' + message['" + INPUT_KEY + "'])] %}"
    "{%- else %}{%- set joined.messages = joined.messages + [message] %}{%- endif %}"
    "{%- endfor %}{%- set messages = joined.messages %}{{- '' }}"
)


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """Settings of the tokenizer's own chat template.

    Attributes:
        date: The date to print, as YYYY-MM-DD, in templates that print today's. None: DEFAULT_DATE.
        arguments: Values for the template's own variables, such as `enable_thinking`.

    Raises:
        UserError: If the date is not a date, or a name is not a variable's.
    """

    date: str | None = None
    arguments: Mapping[str, Argument] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            datetime.date.fromisoformat(self.date or DEFAULT_DATE)
        except ValueError:
            raise UserError(f"--data.template_date {self.date}: expected a date such as {DEFAULT_DATE}.") from None
        for name, value in self.arguments.items():
            if not _NAME.fullmatch(name) or not isinstance(value, Argument):
                raise UserError(
                    f"--data.chat_template_kwargs: {name!r} is {value!r}; expected names of variables with a number, a "
                    "text, true or false, such as '{enable_thinking: false}'."
                )

    @property
    def is_default(self) -> bool:
        """Whether nothing is set."""
        return self.date is None and not self.arguments


def source_of(tokenizer: PreTrainedTokenizerBase, name: str = "default") -> str | None:
    """The text of the tokenizer's chat template; of the one named, if there are several. None if there is none.

    Raises:
        UserError: If there are several and none of that name.
    """
    source: Any = tokenizer.chat_template
    if not isinstance(source, dict):
        return str(source) if source else None
    if name not in source:
        raise UserError(
            f"the tokenizer has the chat templates {', '.join(sorted(source))}, but none named {name!r}; rename one in "
            "the tokenizer's files, or use `--data.template chatml` (or alpaca, plain)."
        )
    return str(source[name])


def with_options(source: str, options: ChatOptions) -> str:
    """A chat template that always prints the same date, and whose variables have the given values by default.

    Args:
        source: The program.
        options: The date and the values.

    Raises:
        UserError: If it prints the date in a way that cannot be fixed, or has no such variable.
    """
    frozen = _frozen(source, datetime.date.fromisoformat(options.date or DEFAULT_DATE))
    if options.date is not None and frozen == source:
        raise UserError(
            f"--data.template_date {options.date}: the tokenizer's chat template prints no date; remove the setting."
        )
    return "".join(_assignment(name, value, source) for name, value in options.arguments.items()) + frozen


def joining_input(source: str) -> str:
    """A chat template that appends the `input` of a message to its content, on a new line."""
    return _JOINS_INPUT + source


def _frozen(source: str, date: datetime.date) -> str:
    frozen = _CLOCK.sub(lambda match: json.dumps(date.strftime(match["format"]), ensure_ascii=False), source)
    frozen = _HAS_CLOCK.sub(lambda match: "false" if match["no"] else "true", frozen)
    if "strftime_now" in frozen:
        raise UserError(
            "the tokenizer's chat template prints today's date in a way that cannot be fixed to one day, so the text "
            "would depend on the day it is rendered. Put a date in `chat_template` in the tokenizer's files, or use "
            "`--data.template chatml` (or alpaca, plain)."
        )
    return frozen


def _assignment(name: str, value: Argument, source: str) -> str:
    """Set a variable unless the caller does. The empty text at the end keeps the line breaks that follow."""
    if not re.search(rf"\b{name}\b", source):
        raise UserError(
            f"--data.chat_template_kwargs: the tokenizer's chat template has no variable {name!r}; remove it, or "
            "correct its name."
        )
    return f"{{%- set {name} = {name} if {name} is defined else {json.dumps(value)} %}}{{{{- '' }}}}"
