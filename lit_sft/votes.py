"""Votes on two answers to one prompt, by people or judges: a file of JSON lines that every command writes and reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from data_modules.errors import UserError
from data_modules.wording import either, nearest_path
from lit_sft.fields import Fields
from lit_sft.files import append_line, digest, short_reason, write_lines

Winner = Literal["left", "right", "tie", "both_bad"]
"""What a voter preferred. Both answers can be equally good (`tie`) or equally bad."""

Ending = Literal["complete", "cut", "stopped", ""]
"""How an answer ended: by itself, at its maximum number of tokens, because someone stopped it, or unknown."""

VoterKind = Literal["person", "judge"]

_FORMAT = 1
"""Of a line; raise it when lines can no longer be read as before."""

_ADVICE = "Each line is a vote as in docs/arena.md; correct the line, or remove it."


@dataclass(frozen=True, slots=True)
class Voter:
    """Who voted.

    Attributes:
        kind: A person, or a model that judges.
        name: Tells voters apart. It need not be a person's real name.
    """

    kind: VoterKind
    name: str


@dataclass(frozen=True, slots=True)
class Side:
    """An answer, and how it came about.

    Attributes:
        model: The model's name.
        answer: Its answer.
        digest: A digest of the model's weights, tokenizer and template; empty if unknown. Models of one name with
            different digests are rated separately.
        sampling: How the answer was sampled, such as the temperature.
        seed: The seed, if known.
        ending: How the answer ended.
    """

    model: str
    answer: str
    digest: str = ""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    ending: Ending = ""

    @property
    def is_unfinished(self) -> bool:
        """Whether the answer is known to be stopped or cut."""
        return self.ending in ("cut", "stopped")

    def row(self) -> dict[str, Any]:
        """As JSON."""
        row = asdict(self)
        if not self.ending:
            del row["ending"]  # as in votes of earlier versions, whose ids depend on it
        return row


@dataclass(frozen=True, slots=True)
class Message:
    """A message of the prompt.

    Attributes:
        role: `system`, `user` or `assistant`.
        content: Its text.
    """

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Vote:
    """A vote.

    Attributes:
        id: Identifies what was voted on and by whom. A later vote with the same id replaces an earlier one, so that
            voters can change their minds and files can be joined.
        time: When, in ISO 8601 with a time zone.
        voter: Who voted.
        winner: The side that was preferred.
        prompt: The conversation that both models answered.
        left: The answer shown on the left, or first.
        right: The answer shown on the right, or second.
        is_blind: Whether the voter did not know which model wrote which answer.
    """

    id: str
    time: str
    voter: Voter
    winner: Winner
    prompt: tuple[Message, ...]
    left: Side
    right: Side
    is_blind: bool

    @property
    def prompt_key(self) -> str:
        """Equal for votes on the same prompt."""
        return digest([[message.role, message.content.strip()] for message in self.prompt])

    def row(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "format": _FORMAT,
            "id": self.id,
            "time": self.time,
            "voter": {"kind": self.voter.kind, "name": self.voter.name},
            "blind": self.is_blind,
            "winner": self.winner,
            "prompt": [{"role": message.role, "content": message.content} for message in self.prompt],
            "left": self.left.row(),
            "right": self.right.row(),
        }


def now() -> str:
    """The time of a vote."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def append_vote(path: Path, vote: Vote) -> None:
    """Append a vote to a file, and wait until it is on the disk. Several processes may append to one file.

    A half-written last line, as a killed process or a full disk leaves it, is removed.
    """
    append_line(path, vote.row(), sync=True, removes_half_line=True)


def write_votes(path: Path, votes: Iterable[Vote]) -> None:
    """Write a whole file of votes."""
    write_lines(path, (vote.row() for vote in votes))


def read_votes(path: Path, on_damage: Callable[[str], object]) -> Iterator[Vote]:
    """Read votes one by one.

    Args:
        path: A file of JSON lines.
        on_damage: Called with a message if the last line is not JSON and has no line break: it is half-written, by a
            process that was killed or is still writing.

    Raises:
        UserError: If there is no such file, it cannot be read, or any other line is not a vote.
    """
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {nearest_path(path) or 'check the path.'}") from None
    except OSError as error:
        found = "this is a folder" if path.is_dir() else f"cannot be read ({error.strerror})"
        raise UserError(f"{path}: {found}; expected a file of votes, such as votes.jsonl.") from None
    with stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                values = json.loads(line.decode("utf-8-sig"))
            except (ValueError, RecursionError) as error:
                problem = f"{path}:{number}: not valid JSON ({short_reason(error)})."
                if line.endswith(b"\n"):
                    raise UserError(f"{problem} {_ADVICE}") from None
                on_damage(problem)
                continue
            try:
                yield vote_of(values, f"{path}:{number}")
            except UserError as error:
                raise UserError(f"{error} {_ADVICE}") from None


def vote_of(values: Any, place: str) -> Vote:
    """Read a vote.

    Args:
        values: A parsed line.
        place: Where it is from, for errors.

    Raises:
        UserError: If a field is missing or wrong, or a model is compared with itself.
    """
    fields = Fields(values, place)
    if (found := fields.whole("format")) != _FORMAT:
        raise UserError(f"{place}: format {found}; this version reads format {_FORMAT}.")
    voter, left, right = fields.fields("voter"), _side(fields.fields("left")), _side(fields.fields("right"))
    if (left.model, left.digest) == (right.model, right.digest):
        raise UserError(f"{place}: {left.model!r} is compared with itself; expected two models.")
    time, is_blind = fields.text("time"), fields.values.get("blind")
    if not _is_time(time):
        raise UserError(f"{place}: time is {time[:60]!r}; expected one such as 2026-01-31T12:00:00+00:00.")
    if not isinstance(is_blind, bool):
        raise UserError(f"{place}: blind is missing or not a boolean; expected true or false.")
    return Vote(
        id=_given(fields, "id"),
        time=time,
        voter=Voter(_one_of(voter, "kind", get_args(VoterKind)), _given(voter, "name")),
        winner=_one_of(fields, "winner", get_args(Winner)),
        prompt=_prompt(fields),
        left=left,
        right=right,
        is_blind=is_blind,
    )


def _side(fields: Fields) -> Side:
    sampling = dict(fields.fields("sampling").values) if "sampling" in fields else {}
    return Side(
        model=_given(fields, "model"),
        answer=fields.text("answer"),
        digest=fields.text("digest") if "digest" in fields else "",
        sampling=sampling,
        seed=fields.whole("seed") if "seed" in fields else None,
        ending=_one_of(fields, "ending", tuple(filter(None, get_args(Ending)))) if "ending" in fields else "",
    )


def _prompt(fields: Fields) -> tuple[Message, ...]:
    items = fields.values.get("prompt")
    if not isinstance(items, list) or not items:
        raise UserError(f"{fields.place}: prompt is missing or empty; expected a list of messages.")
    parts = [Fields(item, f"{fields.place}: prompt[{index}]") for index, item in enumerate(items)]
    return tuple(Message(_given(part, "role"), part.text("content")) for part in parts)


def _given(fields: Fields, name: str) -> str:
    text = fields.text(name)
    if not text.strip():
        raise UserError(f"{fields.place}: {name} is empty; expected some text.")
    return text


def _one_of(fields: Fields, name: str, known: tuple[str, ...]) -> Any:
    value = fields.text(name)
    if value not in known:
        raise UserError(f"{fields.place}: {name} is {value[:60]!r}; expected {either(known)}.")
    return value


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
