"""What every record becomes: a conversation, or one plain document."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from data_modules.errors import UserError

MAX_TEXT_BYTES = 10 * 2**20
"""Maximum number of bytes of text in a conversation: encoding it takes over a hundred times as much memory."""


class Role(StrEnum):
    """Who speaks. TEXT marks a plain document: one turn without a speaker."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Message:
    """One message.

    Attributes:
        role: Who speaks.
        content: The text.
        context: Material that a user turn refers to (Alpaca's `input`). Truncated first.
        is_trained: Whether an answer may be trained. False: it is only context for later answers, under every mask.
    """

    role: Role
    content: str
    context: str = ""
    is_trained: bool = True


@dataclass(frozen=True, slots=True)
class Conversation:
    """An optional system turn, then alternating user and assistant turns; or a single TEXT turn.

    A conversation that ends with a user turn is a bare prompt: you can generate from it, but not train on it.

    Attributes:
        turns: The turns in order.
        origin: Where the record is, `file:line`, for error messages.
        group: Records of one group always share a split. None: no group; the content decides.

    Raises:
        UserError: If the turns are out of order, a turn is empty or not valid Unicode, or the text is too long.
    """

    turns: tuple[Message, ...]
    origin: str
    group: str | None = None

    def __post_init__(self) -> None:
        if not self.turns:
            raise UserError(f"{self.origin}: the conversation has no turns; expected at least one user turn.")
        size = sum(_check_content(turn, number, self.origin) for number, turn in enumerate(self.turns, start=1))
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
    def is_trainable(self) -> bool:
        """Whether there is something to train on: a document, or an answer that its record does not exclude."""
        return any(turn.is_trained and turn.role in (Role.ASSISTANT, Role.TEXT) for turn in self.turns)

    @property
    def system_turns(self) -> tuple[Message, ...]:
        """The system turn, if there is one."""
        return self.turns[:1] if self.turns[0].role is Role.SYSTEM else ()

    def exchanges(self) -> list[tuple[Message, ...]]:
        """The (user, assistant) pairs in order; the last may lack its answer."""
        spoken = [turn for turn in self.turns if turn.role is not Role.SYSTEM]
        return [tuple(spoken[i : i + 2]) for i in range(0, len(spoken), 2)]

    def with_exchanges(self, exchanges: list[tuple[Message, ...]]) -> Conversation:
        """A copy with other exchanges; the system turn and origin stay."""
        return replace(self, turns=(*self.system_turns, *(turn for pair in exchanges for turn in pair)))

    def as_question(self) -> Conversation:
        """A document as a user's question."""
        return replace(self, turns=(Message(Role.USER, self.turns[0].content),))

    def prompt(self) -> Conversation:
        """Everything before the final answer."""
        return replace(self, turns=self.turns[:-1]) if self.turns[-1].role is Role.ASSISTANT else self


def expand_answers(conversation: Conversation) -> list[Conversation]:
    """Make one conversation per trained answer, each ending with that answer.

    A conversation with n answers becomes n conversations, so the data grows; with `output_only`, every answer is
    supervised exactly once. Documents, bare prompts and conversations without a trained answer are returned unchanged.
    """
    exchanges = conversation.exchanges()
    if conversation.is_text or not (conversation.is_answered and conversation.is_trainable):
        return [conversation]
    trained = [count for count, pair in enumerate(exchanges, start=1) if pair[-1].is_trained]
    return [conversation.with_exchanges(exchanges[:count]) for count in trained]


def _check_content(turn: Message, number: int, origin: str) -> int:
    """Check that a turn is neither empty nor broken; returns its size in bytes."""
    size = 0
    for part in (turn.content, turn.context):
        try:
            size += len(part) if part.isascii() else len(part.encode())
        except UnicodeEncodeError as error:
            raise UserError(
                f"{origin}: turn {number} ({turn.role}) contains the lone surrogate {part[error.start]!a}, which is "
                "not valid Unicode. Repair the file's encoding, or set `--data.on_invalid drop`."
            ) from None
    if not turn.content.strip():
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
    for index, turn in enumerate(spoken):
        expected = Role.USER if index % 2 == 0 else Role.ASSISTANT
        if turn.role is not expected:
            before = spoken[index - 1].role if index else None
            place = f"after '{before}'" if before else "at the start"
            raise UserError(
                f"{origin}: turn {index + offset} is '{turn.role}' {place}; "
                f"expected '{expected}': user and assistant must alternate, user first. Merge or remove turns, "
                f"{_rule_for(turn.role, before)}or set `--data.on_invalid drop`."
            )


def _rule_for(role: Role, before: Role | None) -> str:
    """The setting that puts a turn in order, as part of an error message; empty if there is none."""
    if role is before:
        return "set `--data.consecutive merge`, "
    return "set `--data.first_answer drop`, " if role is Role.ASSISTANT and before is None else ""
