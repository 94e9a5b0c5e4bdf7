"""What every record becomes: a conversation of turns, or one plain document."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from enum import StrEnum

from data_modules.errors import UserError

MAX_TEXT_BYTES = 10 * 2**20
"""Bytes of text in a conversation: while it is encoded, a tokenizer needs more than a hundred times as much memory."""


class Role(StrEnum):
    """Who speaks. TEXT marks a plain document, which has one turn and no speaker."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Message:
    """One message.

    Attributes:
        role: Who speaks.
        content: What is said.
        context: Material for a user turn to work on (Alpaca's `input`). Truncation takes it first.
    """

    role: Role
    content: str
    context: str = ""


@dataclass(frozen=True, slots=True)
class Conversation:
    """An optional system turn, then user and assistant turns in alternation; or a single TEXT turn.

    A conversation that ends with a user turn is a bare prompt: it can be generated from, not trained on.

    Attributes:
        turns: The turns in order.
        origin: Place of the record, `file:line`, for every message about it.
        group: Records of one group are never in two splits. None: in no group; the content decides.

    Raises:
        UserError: If the turns are not in that order, a turn is empty or not valid Unicode, or all of them together
            are too long.
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
                f"{self.origin}: {size:,} bytes of text; a record holds at most {MAX_TEXT_BYTES:,}. Split it into "
                "several, or set `--data.on_invalid drop`."
            )
        if self.turns[0].role is not Role.TEXT:
            _check_order(self.turns, self.origin)
        elif len(self.turns) > 1:
            raise UserError(f"{self.origin}: a text document has exactly one turn, got {len(self.turns)}.")

    @property
    def group_key(self) -> str | None:
        """What all records of its group have in common; no `content_key` looks like it. None: in no group."""
        return None if self.group is None else f"group {self.group}"

    @property
    def is_text(self) -> bool:
        return self.turns[0].role is Role.TEXT

    @property
    def is_answered(self) -> bool:
        """Whether there is something to learn: an answer at the end, or a document."""
        return self.turns[-1].role in (Role.ASSISTANT, Role.TEXT)

    @property
    def system_turns(self) -> tuple[Message, ...]:
        return self.turns[:1] if self.turns[0].role is Role.SYSTEM else ()  # a later one would be out of order

    def exchanges(self) -> list[tuple[Message, ...]]:
        """The (user, assistant) pairs in order; the last may lack its answer."""
        spoken = [turn for turn in self.turns if turn.role is not Role.SYSTEM]
        return [tuple(spoken[i : i + 2]) for i in range(0, len(spoken), 2)]

    def with_exchanges(self, exchanges: list[tuple[Message, ...]]) -> Conversation:
        """The same system turn and origin around other exchanges."""
        return replace(self, turns=(*self.system_turns, *(turn for pair in exchanges for turn in pair)))

    def as_question(self) -> Conversation:
        """A document as what a user says."""
        return replace(self, turns=(Message(Role.USER, self.turns[0].content),))

    def prompt(self) -> Conversation:
        """Everything before the final answer."""
        return replace(self, turns=self.turns[:-1]) if self.turns[-1].role is Role.ASSISTANT else self

    def content_key(self) -> str:
        """A digest of what is said, independent of the record's format: equal conversations have equal keys."""
        digest = hashlib.blake2b(digest_size=16)
        for turn in self.turns:
            for part in (turn.role.value, turn.content, turn.context):
                raw = part.encode()
                digest.update(len(raw).to_bytes(8, "little") + raw)
        return digest.hexdigest()


def expand_answers(conversation: Conversation) -> list[Conversation]:
    """One conversation per answer, each ending with it: the "one sample per answer" way of supervising.

    A conversation of n answers becomes n, so the data grows; combined with `output_only`, every answer is supervised
    exactly once. Documents and bare prompts are returned alone.
    """
    exchanges = conversation.exchanges()
    if conversation.is_text or not conversation.is_answered:
        return [conversation]
    return [conversation.with_exchanges(exchanges[:count]) for count in range(1, len(exchanges) + 1)]


def _check_content(turn: Message, number: int, origin: str) -> int:
    """The bytes of a turn that is neither empty nor broken."""
    size = 0
    for part in (turn.content, turn.context):
        try:
            size += len(part) if part.isascii() else len(part.encode())
        except UnicodeEncodeError as error:
            raise UserError(
                f"{origin}: turn {number} ({turn.role}) holds the lone surrogate {part[error.start]!a}, which is not "
                "Unicode text; repair the file's encoding, or set `--data.on_invalid drop`."
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
            before = f"after '{spoken[index - 1].role}'" if index else "at the start"
            raise UserError(
                f"{origin}: turn {index + offset} is '{turn.role}' {before}; expected '{expected}': user and "
                "assistant alternate, the user first. Merge or remove turns, or set `--data.on_invalid drop`."
            )
