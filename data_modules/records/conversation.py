"""What every record becomes: a conversation, or one plain document."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from data_modules.errors import UserError

MAX_TEXT_BYTES = 10 * 2**20
"""Maximum number of bytes of text in a conversation: encoding it takes over a hundred times as much memory."""


class Role(StrEnum):
    """Who speaks. TOOL is the result of a call. TEXT marks a plain document: one turn without a speaker."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a function.

    Attributes:
        name: The function.
        arguments: A JSON object as text, as `json_text` writes it.
        id: What the result refers to; may be empty. Not part of what the call says: ids are random.
    """

    name: str
    arguments: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One message.

    Attributes:
        role: Who speaks.
        content: The text.
        context: Material that a user turn refers to (Alpaca's `input`). Truncated first.
        weight: How much an assistant's message counts in the loss, 0 to 1. 0: it is only context for later answers,
            under every mask.
        thinking: What the assistant thinks before it answers, without markers.
        is_thinking_trained: Whether the thinking is trained. False: it is only context for the answer.
        tool_calls: The assistant's calls, after its content.
        call_id: For the result of a tool, the id of its call; may be empty.
        name: For the result of a tool, the name of the function; may be empty.
    """

    role: Role
    content: str
    context: str = ""
    weight: float = 1.0
    thinking: str = ""
    is_thinking_trained: bool = True
    tool_calls: tuple[ToolCall, ...] = ()
    call_id: str = ""
    name: str = ""

    @property
    def is_trained(self) -> bool:
        """Whether the message may be trained."""
        return self.weight > 0

    @property
    def texts(self) -> tuple[str, ...]:
        """Everything that the message says, part by part; some may be empty."""
        calls = [part for call in self.tool_calls for part in (call.name, call.arguments)] if self.tool_calls else ()
        return (self.content, self.context, self.thinking, *calls)


@dataclass(frozen=True, slots=True)
class Passage:
    """The text that a conversation was made from.

    Attributes:
        origin: Where its article was read, `file:line`.
        start: Where the text starts in the article, in characters.
        stop: Where it ends; 0 if unknown.
        digest: Of the text, which tells whether the article still has it; empty if unknown.
    """

    origin: str
    start: int = 0
    stop: int = 0
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Conversation:
    """An optional system turn, then exchanges; or a single TEXT turn.

    An exchange is a user turn and an assistant turn. After an assistant turn, results of tools may follow, and another
    assistant turn after them: user, assistant, tool, tool, assistant. A conversation that ends with a user turn or a
    result is a bare prompt: you can generate from it, but not train on it.

    Attributes:
        turns: The turns in order.
        origin: Where the record is, `file:line`, for error messages.
        group: Records of one group always share a split. None: no group; the content decides.
        tools: The functions that the assistant may call, each a JSON object as text, as `json_text` writes it, of the
            form {"type": "function", "function": {"name": ...}}.
        passage: The text that it was made from, if its record says so.
        rejected: For a preference pair, the same prompt with the answer that was not preferred. If only one answer
            was rated, the other conversation ends before it.

    Raises:
        UserError: If the turns are out of order, a turn is empty or not valid Unicode, or the text is too long.
    """

    turns: tuple[Message, ...]
    origin: str
    group: str | None = None
    tools: tuple[str, ...] = ()
    passage: Passage | None = field(default=None, compare=False)
    rejected: Conversation | None = None

    def __post_init__(self) -> None:
        if not self.turns:
            raise UserError(f"{self.origin}: the conversation has no turns; expected at least one user turn.")
        size = sum(_check_content(turn, number, self.origin) for number, turn in enumerate(self.turns, start=1))
        if self.tools:
            size += sum(_size(tool, f"{self.origin}: a tool") for tool in self.tools)
        if size > MAX_TEXT_BYTES:
            raise UserError(
                f"{self.origin}: {size:,} bytes of text; expected at most {MAX_TEXT_BYTES:,} per record. Split the "
                "record, or set `--data.on_invalid drop`."
            )
        if self.turns[0].role is not Role.TEXT:
            _check_order(self.turns, self.origin)
        elif len(self.turns) > 1:
            raise UserError(f"{self.origin}: {len(self.turns)} turns; a text document has exactly one.")

    @property
    def group_key(self) -> str | None:
        """The key shared by all records of the group; never equal to a content key. None: no group."""
        return None if self.group is None else f"group {self.group}"

    @property
    def is_text(self) -> bool:
        """Whether this is a plain document."""
        return self.turns[0].role is Role.TEXT

    @property
    def is_answered(self) -> bool:
        """Whether this is a document, or ends with an answer."""
        return self.turns[-1].role in (Role.ASSISTANT, Role.TEXT)

    @property
    def is_unpaired(self) -> bool:
        """Whether this is a pair with one answer, which was rated on its own."""
        return self.rejected is not None and not (self.is_answered and self.rejected.is_answered)

    def with_its_answer(self) -> Conversation:
        """Of an unpaired answer, the conversation with the answer, good or bad; any other conversation as it is."""
        if self.rejected is None or not self.is_unpaired:
            return self
        return replace(self, rejected=None) if self.is_answered else self.rejected

    @property
    def is_trainable(self) -> bool:
        """Whether there is something to train on: a document, or an answer that its record does not exclude."""
        return any(turn.is_trained and turn.role in (Role.ASSISTANT, Role.TEXT) for turn in self.turns)

    @property
    def num_characters(self) -> int:
        """Characters of text in all turns, of both conversations of a preference pair."""
        own = sum(len(text) for turn in self.turns for text in turn.texts)
        return own + (self.rejected.num_characters if self.rejected else 0)

    @property
    def system_turns(self) -> tuple[Message, ...]:
        """The system turn, if there is one."""
        return self.turns[:1] if self.turns[0].role is Role.SYSTEM else ()

    @property
    def has_tools(self) -> bool:
        """Whether there are functions to call, calls or results."""
        return bool(self.tools) or any(turn.role is Role.TOOL or turn.tool_calls for turn in self.turns)

    def exchanges(self) -> list[tuple[Message, ...]]:
        """The turns from each user turn to before the next; the last exchange may lack its answer."""
        spoken = self.turns[len(self.system_turns) :]
        starts = [index for index, turn in enumerate(spoken) if turn.role not in (Role.ASSISTANT, Role.TOOL)]
        return [spoken[start:stop] for start, stop in zip(starts, [*starts[1:], len(spoken)], strict=True)]

    def with_exchanges(self, exchanges: list[tuple[Message, ...]]) -> Conversation:
        """A copy with other exchanges; the system turn and origin stay."""
        return replace(self, turns=(*self.system_turns, *(turn for exchange in exchanges for turn in exchange)))

    def as_question(self) -> Conversation:
        """A document as a user's question."""
        return replace(self, turns=(Message(Role.USER, self.turns[0].content),))

    def prompt(self) -> Conversation:
        """Everything before the final answer."""
        return replace(self, turns=self.turns[:-1]) if self.turns[-1].role is Role.ASSISTANT else self


def expand_answers(conversation: Conversation) -> list[Conversation]:
    """Make one conversation per trained answer, each ending with that answer.

    A conversation with n answers becomes n conversations, so the data grows; with `output_only`, every answer is
    supervised exactly once. A message with tool calls is an answer. Documents, bare prompts, preference pairs (whose
    prompts are not trained) and conversations without a trained answer are returned unchanged.
    """
    if conversation.is_text or conversation.rejected or not (conversation.is_answered and conversation.is_trainable):
        return [conversation]
    turns = conversation.turns
    ends = [index for index, turn in enumerate(turns, start=1) if turn.role is Role.ASSISTANT and turn.is_trained]
    return [replace(conversation, turns=turns[:end]) for end in ends]


def _size(text: str, place: str) -> int:
    """The size of a text in bytes."""
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise UserError(
            f"{place} contains the lone surrogate {text[error.start]!a}, which is not valid Unicode. Repair the file's "
            "encoding, or set `--data.on_invalid drop`."
        ) from None


_RESULTS = "; results of tools follow the assistant's calls"


def _check_content(turn: Message, number: int, origin: str) -> int:
    """Check that a turn is neither empty nor broken; returns its size in bytes."""
    size = 0
    for part in turn.texts if turn.thinking or turn.tool_calls else (turn.content, turn.context):
        size += len(part) if part.isascii() else _size(part, f"{origin}: turn {number} ({turn.role})")
    if not (turn.content.strip() or turn.role is Role.TOOL or turn.tool_calls):
        raise UserError(
            f"{origin}: turn {number} ({turn.role}) is empty; expected text. "
            "Fill it in, or set `--data.on_invalid drop`."
        )
    return size


def _check_order(turns: tuple[Message, ...], origin: str) -> None:
    spoken = turns[1:] if turns[0].role is Role.SYSTEM else turns
    if not spoken:
        raise UserError(f"{origin}: only a system turn; expected a user turn after it.")
    offset = len(turns) - len(spoken) + 1
    before: Role | None = None
    for index, turn in enumerate(spoken):
        if not _may_follow(turn.role, before):
            expected = Role.ASSISTANT if before in (Role.USER, Role.TOOL) else Role.USER
            place = f"after '{before}'" if before else "at the start"
            raise UserError(
                f"{origin}: turn {index + offset} is '{turn.role}' {place}; expected '{expected}': user and "
                f"assistant must alternate, user first{_RESULTS if turn.role is Role.TOOL else ''}. Merge or remove "
                f"turns, {_rule_for(turn.role, before)}or set `--data.on_invalid drop`."
            )
        before = turn.role


def _may_follow(role: Role, before: Role | None) -> bool:
    if role is Role.USER:
        return before is None or before is Role.ASSISTANT
    if role is Role.ASSISTANT:
        return before is Role.USER or before is Role.TOOL
    return role is Role.TOOL and (before is Role.ASSISTANT or before is Role.TOOL)


def _rule_for(role: Role, before: Role | None) -> str:
    """The setting that puts a turn in order, as part of an error message; empty if there is none."""
    if role is before:
        return "set `--data.consecutive merge`, "
    return "set `--data.first_answer drop`, " if role is Role.ASSISTANT and before is None else ""
