"""Formats turn the fields of a record into a Conversation. A new format is one function and one entry in FORMATS."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from data_modules.errors import UserError
from data_modules.records.conversation import Conversation, Message, Role
from data_modules.records.record import Record
from data_modules.wording import kind_of

GROUP_FIELD = "article_id"
"""Records with the same value in this field (several pairs made from one article) stay in one split. 0 and "0" are the
same value; blank, null and NaN mean no group."""

_NO_GROUP = ("", "nan", "nat", "null", "none", "<na>")
"""How programs write a missing value, in lower case."""

_ROLES = {
    "system": Role.SYSTEM,
    "user": Role.USER,
    "human": Role.USER,
    "assistant": Role.ASSISTANT,
    "gpt": Role.ASSISTANT,
}


@dataclass(frozen=True, slots=True)
class Format:
    """How one kind of record is read.

    Attributes:
        name: What the user types.
        fields: The fields that identify this format; all must be present. Answer fields are not included, so that
            `predict` can read bare prompts.
        turns: Converts fields to turns. Raises UserError without the origin, which `to_conversation` adds.
    """

    name: str
    fields: tuple[str, ...]
    turns: Callable[[dict[str, Any]], list[Message]]


def to_conversation(record: Record, name: str) -> Conversation:
    """Read a record in the named format.

    Raises:
        UserError: If a field is missing or has the wrong type, or the turns are out of order.
    """
    layout = FORMATS[name]
    missing = [field for field in layout.fields if field not in record.fields]
    if missing:
        raise UserError(
            f"{record.origin}: format '{name}' needs the field{'s' * (len(missing) > 1)} {', '.join(missing)}; found "
            f"{record.field_names or 'no fields'}. Correct the record, or set `--data.format`; "
            "all records of a file must have the same format."
        )
    try:
        turns = layout.turns(record.fields)
        group = _group(record.fields.get(GROUP_FIELD))
    except UserError as error:
        raise UserError(f"{record.origin}: {error}") from None
    return Conversation(tuple(turns), record.origin, group)


def recognise_format(record: Record) -> str:
    """Detect the format of a record from its fields; the first match in FORMATS.

    Raises:
        UserError: If none matches.
    """
    for layout in FORMATS.values():
        if all(field in record.fields for field in layout.fields):
            return layout.name
    known = "; ".join(f"{layout.name}: {', '.join(layout.fields)}" for layout in FORMATS.values())
    raise UserError(
        f"{record.origin}: no known format has the fields {record.field_names or '(none)'}; expected the fields of "
        f"one of {{{known}}}. Rename the fields."
    )


def _group(value: Any) -> str | None:
    if isinstance(value, (list, tuple, dict, bytes, bool)):
        raise UserError(f"field '{GROUP_FIELD}' is {kind_of(value)}; expected a string or a number.")
    group = str(value)
    return None if group.strip().casefold() in _NO_GROUP else group


def _alpaca(fields: dict[str, Any]) -> list[Message]:
    turns = _system(fields)
    turns.append(Message(Role.USER, _text(fields, "instruction"), context=_text(fields, "input", optional=True)))
    return turns + _answer(_text(fields, "output", optional=True))


def _prompt_completion(fields: dict[str, Any]) -> list[Message]:
    return [Message(Role.USER, _text(fields, "prompt")), *_answer(_text(fields, "completion", optional=True))]


def _messages(fields: dict[str, Any]) -> list[Message]:
    return _named_turns(_list(fields, "messages"), "messages", "role", "content")


def _sharegpt(fields: dict[str, Any]) -> list[Message]:
    return _system(fields) + _named_turns(_list(fields, "conversations"), "conversations", "from", "value")


def _ultrachat(fields: dict[str, Any]) -> list[Message]:
    texts = _list(fields, "data")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise UserError(f"data[{index}] is {kind_of(text)}; expected a string.")
    return [Message(Role.ASSISTANT if index % 2 else Role.USER, text) for index, text in enumerate(texts)]


def _firefly(fields: dict[str, Any]) -> list[Message]:
    turns = _system(fields)
    for index, pair in enumerate(_list(fields, "conversation")):
        if not isinstance(pair, dict) or not {"human", "assistant"} <= pair.keys():
            raise UserError(
                f"conversation[{index}]{_missing_field(pair, 'human', 'assistant')}; expected an object "
                "with 'human' and 'assistant'."
            )
        turns.append(Message(Role.USER, _text(pair, "human")))
        turns.append(Message(Role.ASSISTANT, _text(pair, "assistant")))
    return turns


def _plain_text(fields: dict[str, Any]) -> list[Message]:
    return [Message(Role.TEXT, _text(fields, "text"))]


# The order matters if a record has the fields of two formats: the more specific one comes first.
FORMATS: dict[str, Format] = {
    layout.name: layout
    for layout in (
        Format("messages", ("messages",), _messages),
        Format("sharegpt", ("conversations",), _sharegpt),
        Format("firefly", ("conversation",), _firefly),
        Format("ultrachat", ("id", "data"), _ultrachat),
        Format("alpaca", ("instruction",), _alpaca),
        Format("prompt_completion", ("prompt",), _prompt_completion),
        Format("text", ("text",), _plain_text),
    )
}

FormatName = Literal["messages", "sharegpt", "firefly", "ultrachat", "alpaca", "prompt_completion", "text"]
assert set(FORMATS) == set(FormatName.__args__)  # type: ignore[attr-defined]


def _named_turns(items: Iterable[Any], field: str, role_key: str, content_key: str) -> list[Message]:
    turns = []
    for index, item in enumerate(items):
        if not isinstance(item, dict) or not {role_key, content_key} <= item.keys():
            raise UserError(
                f"{field}[{index}]{_missing_field(item, role_key, content_key)}; expected an object "
                f"with '{role_key}' and '{content_key}'."
            )
        given = item[role_key]
        role = _ROLES.get(str(given))
        if role is None:
            shown = repr(given[:40]) if isinstance(given, str) else kind_of(given)
            raise UserError(f"{field}[{index}].{role_key} is {shown}; expected one of {', '.join(_ROLES)}.")
        turns.append(Message(role, _text(item, content_key)))
    return turns


def _missing_field(item: Any, *names: str) -> str:
    """Why a turn is not an object with these fields."""
    if not isinstance(item, dict):
        return f" is {kind_of(item)}"
    return f" has no field '{next(name for name in names if name not in item)}'"


def _system(fields: dict[str, Any]) -> list[Message]:
    text = _text(fields, "system", optional=True)
    return [Message(Role.SYSTEM, text)] if text.strip() else []


def _answer(text: str) -> list[Message]:
    """The answer, if any. A blank one makes the record a bare prompt, which `predict` accepts and training rejects."""
    return [Message(Role.ASSISTANT, text)] if text.strip() else []


def _text(fields: dict[str, Any], name: str, *, optional: bool = False) -> str:
    value = fields.get(name)
    if value is None and optional:
        return ""
    if not isinstance(value, str):
        raise UserError(f"field '{name}' is {kind_of(value)}; expected a string.")
    return value


def _list(fields: dict[str, Any], name: str) -> list[Any]:
    value = fields[name]
    if not isinstance(value, list):
        raise UserError(f"field '{name}' is {kind_of(value)}; expected a list of turns.")
    return value
