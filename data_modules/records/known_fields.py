"""Fields other than those of a format, and what is done with each. A field that changes what a record means is read or
refused, never ignored; a field that is not listed here is reported by name.

`docs/data.md` shows the table of this module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, Literal

from data_modules.records.field_values import is_given
from data_modules.wording import kind_of

Place = Literal["record", "message"]


class Use(StrEnum):
    """What is done with a field."""

    HONOURED = "honoured"
    REFUSED = "refused"
    NO_MEANING = "no meaning"


ONLY_TEXT = "only text is supported"
_PREFERENCE = (
    "preference data, which is read as pairs: records with a prompt, `chosen` and `rejected` (format 'preference')"
)
_NOTHING = ("[]", "{}", "null", "none", "nan")
"""How a file without types, such as .csv, writes an empty value."""

_ADVICE = "Remove the field, or set `--data.on_invalid drop`."


def is_boolean(value: Any) -> bool:
    """Whether a value is true or false, or the same as text."""
    return isinstance(value, bool) or (isinstance(value, str) and value.strip().casefold() in ("true", "false"))


def is_below_one(value: Any) -> bool:
    """Whether a value means that something is trained less than the rest: false, or a weight of at least 0 below 1."""
    if is_boolean(value):
        return str(value).strip().casefold() == "false"
    try:
        return 0 <= float(value) < 1
    except (TypeError, ValueError):
        return False


@dataclass(frozen=True, slots=True)
class KnownField:
    """Fields with one meaning.

    Attributes:
        names: Their names.
        use: What is done with them.
        reason: What they do, or why they are refused: the end of an error message.
        formats: The formats in which they have this meaning. Empty: all.
        applies: Which values have this meaning; a field with another value counts as unknown.
    """

    names: tuple[str, ...]
    use: Use
    reason: str
    formats: tuple[str, ...] = ()
    applies: Callable[[Any], bool] = is_given


_CHATS = ("messages", "sharegpt", "firefly", "ultrachat")
_PAIRS = ("alpaca", "prompt_completion")
_OF_PREFERENCE = ("preference",)
_MEDIA = ("image", "images", "audio", "audios", "video", "videos")
WEIGHTS = ("weight", "train", "training", "loss_weight")
"""Fields of a message that say whether it is trained: OpenAI's, Axolotl's two and LLaMA-Factory's."""

_IDS = ("id", "idx", "index", "uid", "uuid", "conversation_id", "prompt_id", "__index_level_0__")

RECORD_FIELDS = (
    KnownField(("system",), Use.HONOURED, "the system message", formats=("sharegpt", "firefly", "alpaca")),
    KnownField(
        ("system",),
        Use.HONOURED,
        "the system message",
        formats=("messages", "ultrachat", "prompt_completion", *_OF_PREFERENCE),
    ),
    KnownField(("system",), Use.REFUSED, "plain text has no system message", formats=("text",)),
    KnownField(
        ("history",), Use.HONOURED, "earlier turns, a list of [question, answer]", formats=(*_PAIRS, *_OF_PREFERENCE)
    ),
    KnownField(
        ("history",), Use.REFUSED, "a record of this format already lists all of its turns", formats=(*_CHATS, "text")
    ),
    KnownField(("article_id",), Use.HONOURED, "records with the same value stay in one split"),
    KnownField(
        ("tools", "functions"),
        Use.HONOURED,
        "the functions that the assistant may call: a list, or the same as JSON text",
        formats=(*_CHATS, *_PAIRS, *_OF_PREFERENCE),
    ),
    KnownField(("tools", "functions"), Use.REFUSED, "plain text has no tools", formats=("text",)),
    KnownField(("tool_calls", "function_call"), Use.REFUSED, "a call is read from the message that makes it"),
    KnownField(_MEDIA, Use.REFUSED, ONLY_TEXT),
    KnownField(
        ("score_chosen", "score_rejected", "chosen_model", "rejected_model", "votes"),
        Use.NO_MEANING,
        "says how the answers were rated; only which one was preferred counts",
        formats=_OF_PREFERENCE,
    ),
    KnownField(
        ("votes",),
        Use.NO_MEANING,
        "says how the answer was rated; only its label counts",
        formats=("prompt_completion",),
    ),
    KnownField(
        ("chosen", "rejected", "score_chosen", "score_rejected"),
        Use.REFUSED,
        _PREFERENCE,
        formats=(*_CHATS, *_PAIRS, "text"),
    ),
    KnownField(
        ("label",),
        Use.HONOURED,
        "true or false: whether the last answer is good; see preferences.md",
        formats=(*_CHATS, *_PAIRS),
        applies=is_boolean,
    ),
    KnownField(("kto_tag",), Use.HONOURED, "the same as `label`", formats=(*_CHATS, *_PAIRS)),
    KnownField(("kto_tag",), Use.REFUSED, "it rates a single answer to a prompt", formats=("text", *_OF_PREFERENCE)),
    KnownField(("completions", "labels"), Use.REFUSED, _PREFERENCE, formats=("prompt_completion",)),
    KnownField(
        WEIGHTS,
        Use.REFUSED,
        "false, or a weight below 1, is read from the messages of a conversation only: give it to each answer",
        applies=is_below_one,
    ),
    KnownField(("chat_template_kwargs",), Use.REFUSED, "set them for all records with `--data.chat_template_kwargs`"),
    KnownField(_IDS, Use.NO_MEANING, "names the record"),
    KnownField(("provenance",), Use.NO_MEANING, "says how `synthesize` or `chat` made the record"),
    KnownField(("parallel_tool_calls",), Use.NO_MEANING, "is about `tools`"),
)

MESSAGE_FIELDS = (
    KnownField(
        WEIGHTS,
        Use.HONOURED,
        "0 to 1, or true or false: how much an assistant's message counts in the loss; 0: only context, never trained",
    ),
    KnownField(("train_detail", "training_detail"), Use.REFUSED, "training on part of an answer is not supported"),
    KnownField(
        ("tool_calls", "function_call"),
        Use.HONOURED,
        "calls of functions, each with `name` and `arguments`, an object or JSON text",
    ),
    KnownField(("tool_call_id",), Use.HONOURED, "the call that a tool's message is the result of"),
    KnownField(("tools", "functions"), Use.REFUSED, "functions are read from `tools` of the record"),
    KnownField(
        ("reasoning_content", "reasoning", "thinking"),
        Use.HONOURED,
        "what the assistant thinks before it answers; see `--data.thinking`",
    ),
    KnownField(_MEDIA, Use.REFUSED, ONLY_TEXT),
    KnownField(("refusal",), Use.REFUSED, "a refusal is read only as the content of its message"),
    KnownField(("id", "message_id"), Use.NO_MEANING, "names the message"),
)

_FIELDS: dict[Place, tuple[KnownField, ...]] = {"record": RECORD_FIELDS, "message": MESSAGE_FIELDS}


@dataclass(frozen=True, slots=True)
class FoundFields:
    """The fields of one record other than those of its format.

    Attributes:
        unknown: Fields that nothing reads, each once; those of messages as `messages[].name`.
        fault: Why the record is refused; empty if it is not.
    """

    unknown: tuple[str, ...] = ()
    fault: str = ""


@dataclass(frozen=True, slots=True)
class _Found:
    """A field with a value.

    Attributes:
        name: Its name in counts.
        place: Its name in messages.
        value: The value.
        known: Its entry in the table, if it has one.
    """

    name: str
    place: str
    value: Any
    known: KnownField | None

    @property
    def fault(self) -> str:
        """Why it is refused; empty if it is not."""
        if self.known is None or self.known.use is not Use.REFUSED:
            return ""
        return f"{self.place} is {kind_of(self.value)}; {self.known.reason}. {_ADVICE}"


def examine(
    fields: Mapping[str, Any],
    format: str,
    own: tuple[str, ...],
    message_lists: tuple[str, ...] = (),
    own_of_message: tuple[str, ...] = (),
) -> FoundFields:
    """Find the fields of a record other than those of its format.

    Args:
        fields: The record's.
        format: Name of its format.
        own: The fields that the format reads.
        message_lists: The fields that may be lists of messages.
        own_of_message: The fields that the format reads in a message.
    """
    found = [_Found(name, f"field '{name}'", *rest) for name, *rest in _given(fields, "record", format, own)]
    lists = ((name, items) for name in message_lists if isinstance(items := fields.get(name), list))
    for message_list, index, item in ((name, *place) for name, items in lists for place in enumerate(items)):
        # with fewer fields, it has no others or is refused for lack of one
        if isinstance(item, dict) and len(item) > len(own_of_message):
            names_a_tool = item.get(own_of_message[0]) in _NAMED_BY_A_TOOL
            own_fields = (*own_of_message, "name") if names_a_tool else own_of_message
            found += [
                _Found(f"{message_list}[].{name}", f"{message_list}[{index}].{name}", *rest)
                for name, *rest in _given(item, "message", format, own_fields)
            ]
    if not found:
        return FoundFields()
    return FoundFields(
        unknown=tuple(dict.fromkeys(each.name for each in found if each.known is None)),
        fault=next(filter(None, (each.fault for each in found)), ""),
    )


def preference_fault(fields: Mapping[str, Any]) -> str:
    """Why a record without a known format is refused if it is preference data; empty if it is not."""
    for name, value, known in _given(fields, "record", "text", ()):
        if known is not None and known.reason == _PREFERENCE:
            return f"field '{name}' is {kind_of(value)}; {known.reason}."
    return ""


def table() -> list[tuple[str, str, str, str]]:
    """The known fields as rows for the docs: where, names, what is done, why. The same reason is one row."""
    rows: dict[tuple[str, str, Use, str], list[str]] = {}
    for place, known in ((place, known) for place, fields in _FIELDS.items() for known in fields):
        names = ", ".join(f"`{name}`" for name in known.names)
        rows.setdefault((names, place, known.use, known.reason), []).extend(known.formats)
    return [
        (f"{place}: {', '.join(formats)}" if formats else place, names, use.value, reason)
        for (names, place, use, reason), formats in rows.items()
    ]


def _given(
    fields: Mapping[str, Any], place: Place, format: str, own: tuple[str, ...]
) -> Iterator[tuple[str, Any, KnownField | None]]:
    """Fields with a value that the format does not read, each with its entry in the table, if it has one."""
    for name, known in _others(tuple(fields), place, format, own):
        value = fields[name]
        if is_given(value) and not (isinstance(value, str) and value.strip().casefold() in _NOTHING):
            yield name, value, known if known is None or known.applies(value) else None


_NAMED_BY_A_TOOL = ("tool", "function", "observation", "ipython", "tool_response")
"""Roles of messages whose `name` is the tool's, and is read."""


@lru_cache(maxsize=1024)
def _others(
    names: tuple[str, ...], place: Place, format: str, own: tuple[str, ...]
) -> tuple[tuple[str, KnownField | None], ...]:
    """Cached, because most records of a file have the same fields."""
    known = {
        name: field
        for field in reversed(_FIELDS[place])
        for name in field.names
        if not field.formats or format in field.formats
    }
    others = ((name, known.get(name)) for name in names if name not in own)
    return tuple((name, field) for name, field in others if field is None or field.use is not Use.NO_MEANING)
