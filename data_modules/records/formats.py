"""Formats turn the fields of a record into a Conversation. A new format is one function and one entry in FORMATS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from data_modules.errors import UserError
from data_modules.records.column_proposals import proposal, text_proposal
from data_modules.records.conversation import Conversation, Message, Passage, Role
from data_modules.records.counts import RecordCounts
from data_modules.records.field_values import is_given, text, turn_list
from data_modules.records.known_fields import FoundFields, examine, preference_fault
from data_modules.records.messages import keys_of_messages, missing_field, named_turns, weight_of
from data_modules.records.preferences import (
    ANSWERS,
    check_repeats,
    messages_of,
    rating_of,
    turns_of_pair,
    turns_of_rated,
)
from data_modules.records.record import Record
from data_modules.records.thinking import thinking_of
from data_modules.records.tools import TOOLS, calls_of, tools_of
from data_modules.records.turn_order import TurnRules, arranged
from data_modules.wording import kind_of

GROUP_FIELD = "article_id"
"""Records with the same value in this field (several pairs made from one article) stay in one split. 0 and "0" are the
same value; blank, null and NaN mean no group."""

_IN_ORDER = TurnRules()

_NO_GROUP = ("", "nan", "nat", "null", "none", "<na>")
"""How programs write a missing value, in lower case."""


@dataclass(frozen=True, slots=True)
class Format:
    """How one kind of record is read.

    Attributes:
        name: What the user types.
        fields: The fields that identify this format; all must be present. Answer fields are not included, so that
            `predict` can read bare prompts.
        turns: Converts fields to turns. Raises UserError without the origin, which `to_conversation` adds.
        optional: Other fields that `turns` reads, except those of `known_fields`.
        of_message: The fields of a message, if the record's own fields are, or may be, lists of messages.
        rejected: For preference pairs: converts fields to the turns with the rejected answer.
    """

    name: str
    fields: tuple[str, ...]
    turns: Callable[[dict[str, Any]], list[Message]]
    optional: tuple[str, ...] = ()
    of_message: tuple[str, ...] = ()
    rejected: Callable[[dict[str, Any]], list[Message]] | None = None

    def examine(self, fields: dict[str, Any]) -> FoundFields:
        """Find the fields of a record other than those of this format."""
        of_message = self.of_message
        if self.turns in _EITHER_SPELLING:
            of_message = keys_of_messages(_first_messages(fields, self.message_lists), *of_message)
        return examine(fields, self.name, (*self.fields, *self.optional), self.message_lists, of_message)

    @property
    def message_lists(self) -> tuple[str, ...]:
        """The fields that are, or may be, lists of messages."""
        return (*self.fields, *self.optional) if self.of_message else ()


def to_conversation(
    record: Record, name: str, rules: TurnRules = _IN_ORDER, counts: RecordCounts | None = None
) -> Conversation:
    """Read a record in the named format.

    Args:
        record: The record.
        name: A name in FORMATS.
        rules: What is done with turns that are out of order.
        counts: Counts the fields that are not used and the turns that were changed, if given.

    Raises:
        UserError: If a field is missing, refused or has the wrong type, or the turns are out of order.
    """
    layout = FORMATS[name]
    check_fields(record, name, counts)
    try:
        turns, changes = arranged(layout.turns(record.fields), rules)
        others: tuple[Message, ...] = ()
        if layout.rejected is not None:
            others = arranged(layout.rejected(record.fields), rules)[0]
        elif name != "text" and (rating := rating_of(record.fields)) is not None:
            turns, others = turns_of_rated(turns, is_good=rating)
        tools = () if TOOLS.isdisjoint(record.fields) else tools_of(record.fields)
        group = group_of(record)
    except UserError as error:
        raise UserError(f"{record.origin}: {error}") from None
    if counts is not None:
        counts.count_changes(changes)
    rejected = Conversation(others, record.origin, group, tools) if others else None
    return Conversation(turns, record.origin, group, tools, passage_of(record), rejected)


def recognise_format(record: Record) -> str:
    """Detect the format of a record from its fields; the first match in FORMATS.

    Raises:
        UserError: If none matches.
    """
    for layout in FORMATS.values():
        if all(field in record.fields for field in layout.fields):
            return layout.name
    fault = preference_fault(record.fields)
    if fault:
        raise UserError(f"{record.origin}: {fault}")
    known = "; ".join(f"{layout.name}: {', '.join(layout.fields)}" for layout in FORMATS.values())
    raise UserError(
        f"{record.origin}: no known format has the fields {record.field_names or '(none)'}; expected the fields of "
        f"one of {{{known}}}. {_to_rename(record)}"
    )


def has_conversation(record: Record) -> bool:
    """Whether a record without a field `text` has a conversation, in a known format or under other field names."""
    if any(all(field in record.fields for field in layout.fields) for layout in FORMATS.values()):
        return True
    return proposal(record.fields) not in ("", text_proposal(record.fields))


def _to_rename(record: Record) -> str:
    proposed = proposal(record.fields)
    if record.columns:
        return "Correct `--data.columns`, or rename the fields."
    if proposed:
        return f"Set {proposed}, or rename the fields."
    return (
        "Set `--data.columns '{instruction: YOUR_COLUMN, output: YOUR_COLUMN}'` with the names of your columns, or "
        "rename the fields."
    )


def _columns(record: Record) -> str:
    """The columns to propose, as part of a list of options; may be empty."""
    proposed = "" if record.columns else proposal(record.fields)
    return f"{proposed} or " if proposed else ""


def check_fields(record: Record, name: str, counts: RecordCounts | None = None) -> None:
    """Refuse a record that lacks a field of its format, or has one that is refused.

    Args:
        record: The record.
        name: A name in FORMATS.
        counts: Counts the fields that are not used, if given.

    Raises:
        UserError: If a field is missing or refused.
    """
    layout = FORMATS[name]
    missing = [field for field in layout.fields if field not in record.fields]
    if missing:
        raise UserError(
            f"{record.origin}: format '{name}' needs the field{'s' * (len(missing) > 1)} {', '.join(missing)}; found "
            f"{record.field_names or 'no fields'}. Correct the record, or set {_columns(record)}`--data.format`; "
            "all records of a file must have the same format."
        )
    found = layout.examine(record.fields)
    if counts is not None:
        counts.count_fields(record.file, found)
    if found.fault:
        raise UserError(f"{record.origin}: {found.fault}")


def group_of(record: Record) -> str | None:
    """The group of a record; None if it has none.

    Raises:
        UserError: If it is not text or a number; without the origin.
    """
    value = record.fields.get(GROUP_FIELD)
    if isinstance(value, (list, tuple, dict, bytes, bool)):
        raise UserError(f"field '{GROUP_FIELD}' is {kind_of(value)}; expected a string or a number.")
    group = str(value)
    return None if group.strip().casefold() in _NO_GROUP else group


def passage_of(record: Record) -> Passage | None:
    """The text that a record of `synthesize` was made from; None for other records."""
    made = record.fields.get("provenance")
    if not isinstance(made, dict) or not isinstance(made.get("origin"), str):
        return None
    match made.get("span"):
        case [int(start), int(stop)] if 0 <= start < stop:
            digest = made.get("text_digest")
            return Passage(made["origin"], start, stop, digest if isinstance(digest, str) else "")
    return Passage(made["origin"])


def _alpaca(fields: dict[str, Any]) -> list[Message]:
    question = Message(Role.USER, text(fields, "instruction"), context=text(fields, "input", optional=True))
    return [*_system(fields), *_history(fields), question, *_answer(text(fields, "output", optional=True))]


def _prompt_completion(fields: dict[str, Any]) -> list[Message]:
    if isinstance(fields["prompt"], list):
        return _conversational(fields)
    question = Message(Role.USER, text(fields, "prompt"))
    return [*_system(fields), *_history(fields), question, *_answer(text(fields, "completion", optional=True))]


def _conversational(fields: dict[str, Any]) -> list[Message]:
    """TRL's conversational form: both fields are lists of messages. Answers in the prompt are not trained."""
    if is_given(fields.get("history")):
        raise UserError("field 'history' is given, but the prompt already lists all turns; expected one of the two.")
    prompt = named_turns(fields["prompt"], "prompt", "role", "content")
    completion = fields.get("completion")
    answer = named_turns(turn_list(fields, "completion"), "completion", "role", "content") if completion else []
    return _with_system(fields, [replace(turn, weight=_CONTEXT[turn.role]) for turn in prompt] + answer)


_CONTEXT = {role: 0.0 if role is Role.ASSISTANT else 1.0 for role in Role}
"""The weight of a message in a prompt."""


def _messages(fields: dict[str, Any]) -> list[Message]:
    items = turn_list(fields, "messages")
    return _with_system(fields, named_turns(items, "messages", *keys_of_messages(items, "role", "content")))


def _sharegpt(fields: dict[str, Any]) -> list[Message]:
    items = turn_list(fields, "conversations")
    return _with_system(fields, named_turns(items, "conversations", *keys_of_messages(items, "from", "value")))


def _chosen(fields: dict[str, Any]) -> list[Message]:
    return _pair(fields)[0]


def _rejected(fields: dict[str, Any]) -> list[Message]:
    return _pair(fields)[1]


def _pair(fields: dict[str, Any]) -> tuple[list[Message], list[Message]]:
    bare = {**fields, "output": None, "completion": None}
    prompts = {name: read(bare) for name, read in _PROMPTS.items() if is_given(fields.get(name))}
    name, prompt = next(iter(prompts.items()), ("", []))
    if is_given(fields.get("input")) and "instruction" not in prompts:
        prompts["input"] = [Message(Role.USER, text(fields, "input"))]
    chosen, rejected = turns_of_pair(fields, prompt)
    if not name:
        chosen, rejected = _with_system(fields, chosen), _with_system(fields, rejected)
    for other, turns in prompts.items():
        if other != name:
            check_repeats(turns, name, other, (prompt, chosen, rejected))
    return chosen, rejected


_PROMPTS = {
    "prompt": _prompt_completion,
    "instruction": _alpaca,
    "messages": _messages,
    "conversations": _sharegpt,
}
"""How the prompt of a preference pair is read, by its field; without any, it is what both answers begin with."""


_EITHER_SPELLING = (_messages, _sharegpt, _chosen)
"""Formats whose messages may have `role` and `content`, or `from` and `value`."""


def _ultrachat(fields: dict[str, Any]) -> list[Message]:
    texts = turn_list(fields, "data")
    for index, content in enumerate(texts):
        if not isinstance(content, str):
            raise UserError(f"data[{index}] is {kind_of(content)}; expected a string.")
    turns = [Message(Role.ASSISTANT if index % 2 else Role.USER, content) for index, content in enumerate(texts)]
    return _system(fields) + turns


def _firefly(fields: dict[str, Any]) -> list[Message]:
    turns = _system(fields)
    for index, pair in enumerate(turn_list(fields, "conversation")):
        place = f"conversation[{index}]"
        if not isinstance(pair, dict) or not {"human", "assistant"} <= pair.keys():
            raise UserError(
                f"{place}{missing_field(pair, 'human', 'assistant')}; expected an object with 'human' and 'assistant'."
            )
        turns.append(Message(Role.USER, text(pair, "human")))
        weight = weight_of(pair, Role.ASSISTANT, place)
        thinking, calls = thinking_of(pair, Role.ASSISTANT, place), calls_of(pair, Role.ASSISTANT, place)
        answer = text(pair, "assistant")
        turns.append(Message(Role.ASSISTANT, answer, weight=weight, thinking=thinking, tool_calls=calls))
    return turns


def _plain_text(fields: dict[str, Any]) -> list[Message]:
    return [Message(Role.TEXT, text(fields, "text"))]


# The order matters if a record has the fields of two formats: the more specific one comes first.
FORMATS: dict[str, Format] = {
    layout.name: layout
    for layout in (
        Format("preference", ANSWERS, _chosen, (*_PROMPTS, "input"), ("role", "content"), _rejected),
        Format("messages", ("messages",), _messages, of_message=("role", "content")),
        Format("sharegpt", ("conversations",), _sharegpt, of_message=("from", "value")),
        Format("firefly", ("conversation",), _firefly, of_message=("human", "assistant")),
        Format("ultrachat", ("id", "data"), _ultrachat),
        Format("alpaca", ("instruction",), _alpaca, optional=("input", "output")),
        Format("prompt_completion", ("prompt",), _prompt_completion, ("completion",), ("role", "content")),
        Format("text", ("text",), _plain_text),
    )
}

FormatName = Literal[
    "messages", "sharegpt", "firefly", "ultrachat", "alpaca", "prompt_completion", "preference", "text"
]
assert set(FORMATS) == set(FormatName.__args__)  # type: ignore[attr-defined]


def _first_messages(fields: dict[str, Any], names: tuple[str, ...]) -> Any:
    """The first list of messages of a record."""
    return next(filter(None, (messages_of(fields.get(name)) for name in names)), None)


def _with_system(fields: dict[str, Any], turns: list[Message]) -> list[Message]:
    """The turns after the record's system message, unless they begin with the same one."""
    system = _system(fields)
    own = turns[0].content.strip() if turns and turns[0].role is Role.SYSTEM else ""
    if not (system and own):
        return system + turns
    if own != system[0].content.strip():
        raise UserError(
            "field 'system' differs from the system message of the conversation; expected one system message. "
            "Remove one of the two, or set `--data.on_invalid drop`."
        )
    return turns


def _system(fields: dict[str, Any]) -> list[Message]:
    return [Message(Role.SYSTEM, text(fields, "system"))] if is_given(fields.get("system")) else []


def _history(fields: dict[str, Any]) -> list[Message]:
    """Earlier turns as LLaMA-Factory writes them: a list of [question, answer]."""
    if not is_given(fields.get("history")):
        return []
    turns: list[Message] = []
    for index, pair in enumerate(turn_list(fields, "history")):
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair)):
            shown = kind_of(pair) if not isinstance(pair, list) else f"a list of {len(pair)}"
            raise UserError(f"history[{index}] is {shown}; expected [question, answer], two strings.")
        turns += [Message(Role.USER, pair[0]), Message(Role.ASSISTANT, pair[1])]
    return turns


def _answer(content: str) -> list[Message]:
    """The answer, if any. A blank one makes the record a bare prompt, which `predict` accepts and training rejects."""
    return [Message(Role.ASSISTANT, content)] if content.strip() else []
