"""The rule about copies of evaluation items, by the search that contamination is found with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from data_modules.cleaning.options import option
from data_modules.cleaning.units import is_cjk
from data_modules.digests import file_digest
from data_modules.errors import UserError
from data_modules.records.conversation import Conversation, Role
from data_modules.records.formats import recognise_format, to_conversation
from data_modules.records.readers import read_records, source_fingerprint
from data_modules.records.record import Record
from data_modules.wording import reason_of
from lit_sft.metrics.overlap import RunIndex
from lit_sft.metrics.text import words_of
from lit_sft.synthesis.candidate import Candidate

_EMBEDDED = "general"
"""The multiple-choice questions that come with the package."""

_FEWEST = 4
"""Words of a question that counts as copied even with another answer."""


@dataclass(frozen=True)
class EvaluationItems:
    """Refuses pairs that contain an evaluation item: the given number of its consecutive words, all of its question,
    or all of its question and answer if they are shorter."""

    files: tuple[str, ...] = option(
        "Files of evaluation items: conversations as `fit` reads them, multiple choice as `evaluate` reads it, or "
        "`general`, the questions that come with the package.",
        str,
        many=-1,
    )
    overlap: int = option("Consecutive words, as `overlap` in a suite.", int, 8, least=2)
    # eight characters are four or five words: the name of a war and a verb
    overlap_zh: int = option("Consecutive characters of items in Chinese.", int, 12, least=2)

    def __post_init__(self) -> None:
        _ = self._index  # so that a missing file is an error before anything is paid for

    def __call__(self, candidate: Candidate) -> str:
        """Why a conversation is refused; empty if it is not."""
        found = self._index.find("\n".join(f"{question}\n{answer}" for question, answer in candidate.turns))
        return f"contains the evaluation item {min(found)}" if found else ""

    def identity(self) -> dict[str, Any]:
        """What decides which pairs are refused, as JSON values: the content of the files, not their names."""
        return {"files": self._digests, "overlap": self.overlap, "overlap_zh": self.overlap_zh}

    @cached_property
    def _digests(self) -> list[str]:
        return [_digest(source) for source in self.files]

    @cached_property
    def _index(self) -> RunIndex[str]:
        return RunIndex({name: text for source in self.files for name, text in self._items(source)})

    def _items(self, source: str) -> Iterator[tuple[str, tuple[str, int]]]:
        """The texts to search for in the items of a file, and how many of their words must be found."""
        for record in _records(source):
            turns = _turns_of(record)
            for number, (question, answer) in enumerate(turns, start=1):
                name = f"{record.origin}, turn {number}" if len(turns) > 1 else record.origin
                yield name, (f"{question}\n{answer}", self._size(f"{question}\n{answer}"))
                if len(words_of(question)) >= _FEWEST:
                    yield f"{name}, its question", (question, self._size(question))

    def _size(self, text: str) -> int:
        words = words_of(text)
        is_chinese = 2 * sum(map(is_cjk, words)) > len(words)
        return self.overlap_zh if is_chinese else self.overlap


def _records(source: str) -> Iterator[Record]:
    def refuse(message: str) -> None:
        raise UserError(message)

    if source == _EMBEDDED and not Path(source).exists():
        with as_file(files("lit_sft.evaluation") / f"{_EMBEDDED}.jsonl") as path:
            yield from read_records(str(path), reject=refuse)
        return
    try:
        yield from read_records(source, reject=refuse)
    except FileNotFoundError as error:
        raise UserError(f"files: {reason_of(error)}") from None


def _turns_of(record: Record) -> list[tuple[str, str]]:
    """The questions of a record with their answers, which may be empty.

    Raises:
        UserError: If it is neither multiple choice nor a conversation in a known format.
    """
    fields = record.fields
    if isinstance(fields.get("question"), str) and isinstance(fields.get("options"), list):
        return [(str(fields["question"]), str(fields.get("answer", "")))]
    turns: list[tuple[str, str]] = []
    for turn in _conversation(record).turns:
        text = " ".join(filter(None, turn.texts))
        if turn.role is Role.USER:
            turns.append((text, ""))
        elif turn.role is Role.ASSISTANT and turns:
            turns[-1] = (turns[-1][0], text)
    return turns


def _conversation(record: Record) -> Conversation:
    try:
        name = recognise_format(record)
    except UserError:
        name = "text"
    if name == "text":
        raise UserError(
            f"{record.origin}: no questions (fields: {record.field_names}); expected conversations as `fit` reads "
            "them, or multiple choice with the fields question, options and answer."
        )
    return to_conversation(record, name)


def _digest(source: str) -> str:
    if source == _EMBEDDED and not Path(source).exists():
        with as_file(files("lit_sft.evaluation") / f"{_EMBEDDED}.jsonl") as path:
            return file_digest(path)
    return source_fingerprint(source)
