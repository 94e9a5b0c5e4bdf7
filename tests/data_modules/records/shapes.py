"""Records in the shapes of public data sets, and how they are shown when read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from data_modules.records.conversation import Conversation, Message
from data_modules.records.counts import RecordCounts
from data_modules.records.splits import Sources, read_conversations
from data_modules.records.turn_order import TurnRules

Write = Callable[..., str]
Fields = dict[str, Any]

HI = ["user: Hi", "assistant: Hello"]
TALK = [*HI, "user: Bye", "assistant: See you"]


def said(role: str, content: Any, **more: Any) -> Fields:
    return {"role": role, "content": content, **more}


def chat(*, first: Fields | None = None, last: Fields | None = None, **record: Any) -> Fields:
    """Two exchanges in the format `messages`, with more fields on its answers and on the record."""
    texts = ("user", "Hi"), ("assistant", "Hello"), ("user", "Bye"), ("assistant", "See you")
    messages = [said(role, text) for role, text in texts]
    return {"messages": [messages[0], messages[1] | (first or {}), messages[2], messages[3] | (last or {})], **record}


def asked(user: Fields | None = None, answer: Fields | None = None, **record: Any) -> Fields:
    return {"messages": [said("user", "Hi") | (user or {}), said("assistant", "Hello") | (answer or {})], **record}


def shared(*turns: tuple[str, str], answer: Fields | None = None, **record: Any) -> Fields:
    """The format `sharegpt`, with more fields on the last message."""
    items = [{"from": role, "value": text} for role, text in turns or (("human", "Hi"), ("gpt", "Hello"))]
    return {"conversations": [*items[:-1], items[-1] | (answer or {})], **record}


def alpaca(**record: Any) -> Fields:
    return {"instruction": "Hi", "input": "", "output": "Hello", **record}


def completion(**record: Any) -> Fields:
    return {"prompt": "Hi", "completion": "Hello", **record}


def parts(*texts: str, key: str = "text") -> list[Fields]:
    return [{"type": "text", key: text} for text in texts]


def shown(conversation: Conversation) -> list[str]:
    """The turns, one line each."""
    return [f"{turn.role}{_weight(turn)}: {_said(turn)}" for turn in conversation.turns]


def _weight(turn: Message) -> str:
    if turn.weight == 1:
        return ""
    return f", weight {turn.weight:g}" if turn.weight else ", untrained"


def _said(turn: Message) -> str:
    thinking = f"({turn.thinking})" if turn.is_thinking_trained else f"[{turn.thinking}]"
    calls = "".join(f" {call.name}{call.arguments}{f' #{call.id}' * bool(call.id)}" for call in turn.tool_calls)
    of = "".join(f" #{part}" for part in (turn.call_id, turn.name) if part)
    context = f" + {turn.context}" if turn.context else ""
    return f"{thinking * bool(turn.thinking)}{turn.content}{context}{calls}{of}"


def read(write: Write, fields: Fields, rules: TurnRules | None = None) -> list[Conversation]:
    """Read one record from a file."""
    sources = Sources({"train": [write("rows.jsonl", [fields])]}, turn_rules=rules or TurnRules())
    return list(read_conversations("train", sources, RecordCounts()))
