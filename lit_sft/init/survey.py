"""What is in a data set: its format, how it must be read, how many records it has and how long they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from transformers import PreTrainedTokenizerBase

from data_modules.encoding.encoder import Encoder
from data_modules.encoding.example import Example
from data_modules.encoding.ledger import unused_fields
from data_modules.errors import UserError
from data_modules.records.column_proposals import proposed_columns
from data_modules.records.conversation import Conversation, Role
from data_modules.records.counts import RecordCounts
from data_modules.records.formats import recognise_format
from data_modules.records.preferences import rating_of
from data_modules.records.readers import read_records, source_bytes
from data_modules.records.record import Record
from data_modules.records.splits import Sources, keys_of, read_conversations, split_of
from data_modules.records.text_lines import NOT_UTF8, Reading
from data_modules.records.turn_order import TurnRules
from data_modules.rendering.masking import MASKS, MaskName
from data_modules.rendering.templates import AnyTemplate

_MOST_READ = 20_000
"""Records that are read; the number of those in a larger file is estimated from its size."""

_MOST_MEASURED = 20 * 1024 + 1
"""Records that are read again to measure how many bytes each takes; Parquet counts the bytes of 1,024 rows at once."""

_MOST_ENCODED = 1_000
"""Records that are encoded, evenly spaced among those that are read."""

_UNLIMITED = 2**30

_SHARES = (0.05, 0.1, 0.2, 0.3)
_FEW = 5


@dataclass(frozen=True)
class Survey:
    """What is in a data set.

    Attributes:
        format: The format of its first record.
        columns: Fields of the format that have other names.
        rules: Which orders of turns must be accepted.
        num_invalid: Records that are left out.
        reason: Why the first of them is invalid.
        conversations: Valid records, at most 20,000.
        num_records: Number of valid records; an estimate if the file is larger.
        is_estimate: Whether it is.
        unused_fields: One line for each file with fields that nothing reads.
    """

    format: str
    columns: dict[str, str]
    rules: TurnRules
    num_invalid: int
    reason: str
    conversations: list[Conversation]
    num_records: int
    is_estimate: bool
    unused_fields: tuple[str, ...] = ()

    @property
    def is_text(self) -> bool:
        """Whether the records are plain documents."""
        return all(turn.role is Role.TEXT for turn in self.conversations[0].turns)

    @property
    def is_preference(self) -> bool:
        """Whether the records are preference pairs."""
        return self.conversations[0].rejected is not None

    @property
    def has_several_answers(self) -> bool:
        """Whether a conversation has more than one answer to train."""
        return any(
            sum(turn.role is Role.ASSISTANT and turn.weight > 0 for turn in conversation.turns) > 1
            for conversation in self.conversations
        )

    def share_to_hold_out(self) -> float:
        """The smallest usual share that leaves a few records for validation and for testing; 0 if there are too few."""
        points = [keys_of(conversation)[0] for conversation in self.conversations]
        for least in (_FEW, 1):
            for share in _SHARES:
                splits = [split_of(point, {"val": share, "test": share}) for point in points]
                if min(splits.count("val"), splits.count("test")) >= least and "train" in splits:
                    return share
        return 0.0


@dataclass(frozen=True)
class Lengths:
    """Lengths of a sample of the examples, in tokens.

    Attributes:
        tokens: All tokens of each; of a preference pair, those of the longer document.
        supervised: Those that carry the loss.
        shorter: Tokens of the other documents of pairs.
    """

    tokens: tuple[int, ...]
    supervised: tuple[int, ...]
    shorter: tuple[int, ...] = ()

    def percentile(self, share: float) -> int:
        """The length that this share of the examples does not exceed."""
        return int(np.percentile(self.tokens, 100 * share, method="inverted_cdf"))

    def share_above(self, limit: int) -> float:
        """The share of the examples that are longer."""
        return sum(length > limit for length in self.tokens) / len(self.tokens)


def survey(data: str) -> Survey:
    """Read a data set as `fit` would, and find out which settings it needs to be read.

    Args:
        data: File, folder or hub name.

    Raises:
        UserError: If no format fits, or no record is valid.
    """
    first = _first_record(data)
    try:
        name, columns = recognise_format(first), {}
    except UserError:
        columns = proposed_columns(first.fields)
        if not columns:
            raise
        fields = {field: first.fields.get(columns.get(field, field)) for field in {*first.fields, *columns}}
        name = recognise_format(Record(fields, first.origin))
    if rating_of(first.fields) is not None:
        raise UserError(
            f"{first.origin}: an answer rated one by one; init writes configs for answers, pairs and text. See "
            "docs/preferences.md, or remove the rating to train on all answers."
        )
    sources = Sources({"train": [data]}, {}, columns=columns)
    rules, conversations, counts = _readable(sources)
    _check_encoding(conversations, counts)
    total = _estimate(data, len(conversations), counts) if len(conversations) == _MOST_READ else None
    return Survey(
        name,
        columns,
        rules,
        counts.num_invalid,
        counts.invalid[0] if counts.invalid else "",
        conversations,
        total or len(conversations),
        total is not None,
        tuple(unused_fields({"unknown_fields": counts.unknown_fields})),
    )


def encoded(found: Survey, tokenizer: PreTrainedTokenizerBase, template: AnyTemplate) -> list[Example]:
    """Encode a sample of the records, whole.

    Args:
        found: The records.
        tokenizer: The model's.
        template: Renders conversations.
    """
    encoder = Encoder(tokenizer, template, _UNLIMITED)
    step = max(1, len(found.conversations) // _MOST_ENCODED)
    examples: list[Example] = []
    for conversation in found.conversations[::step]:
        try:
            examples += encoder.encode(conversation)
        except UserError:
            if not found.num_invalid:  # invalid records are dropped
                raise
    return examples


def lengths(examples: Sequence[Example], mask: MaskName) -> Lengths:
    """How long encoded records are.

    Args:
        examples: Some of them.
        mask: Which tokens carry the loss.
    """
    documents = [[each for each in (example, example.rejected) if each is not None] for example in examples]
    supervised = [sum(int((each.loss_weights(MASKS[mask]) > 0).sum()) for each in pair) for pair in documents]
    sizes = [sorted(map(len, pair)) for pair in documents]
    return Lengths(
        tuple(pair[-1] for pair in sizes), tuple(supervised), tuple(pair[0] for pair in sizes if len(pair) > 1)
    )


def _first_record(source: str) -> Record:
    try:
        return next(iter(read_records(source, reject=_ignore)))
    except StopIteration:
        raise UserError(f"{source}: no record can be read; `lit-sft lint {source}` says why.") from None
    except FileNotFoundError as error:
        raise UserError(str(error)) from None


def _ignore(message: str) -> None:
    """Unreadable records are counted later."""


def _readable(sources: Sources) -> tuple[TurnRules, list[Conversation], RecordCounts]:
    """The records, read as strictly as possible: as they are, else with other orders of turns, else the valid ones."""
    usual, relaxed = TurnRules(), TurnRules("merge", "drop")
    for rules in (usual, relaxed):
        try:
            return rules, *_read(replace(sources, turn_rules=rules))
        except UserError:
            continue
    dropping = replace(sources, on_invalid="drop")
    found = {rules: _read(replace(dropping, turn_rules=rules)) for rules in (usual, relaxed)}
    best = usual if len(found[usual][0]) >= len(found[relaxed][0]) else relaxed
    return best, *found[best]


def _read(sources: Sources) -> tuple[list[Conversation], RecordCounts]:
    counts = RecordCounts(sources.on_invalid)
    return list(islice(read_conversations("train", sources, counts), _MOST_READ)), counts


def _check_encoding(conversations: Sequence[Conversation], counts: RecordCounts) -> None:
    """Refuse a file in another encoding, of which only the records in plain ASCII can be read.

    Raises:
        UserError: If no record has a character outside ASCII, and some have bytes that are not UTF-8.
    """
    wrong = next((message for message in counts.invalid if NOT_UTF8 in message), None)
    if wrong is not None and all(
        text.isascii() for each in conversations for turn in each.turns for text in turn.texts
    ):
        raise UserError(wrong)


def _estimate(data: str, num_valid: int, counts: RecordCounts) -> int | None:
    """How many valid records files have, from the bytes that the first ones take there; None for hub data sets.

    Args:
        data: File, folder or hub name.
        num_valid: Valid records that were read.
        counts: Counts the invalid ones before the last of them.
    """
    size = source_bytes(data)
    if size is None:
        return None
    read: list[int] = []
    unreadable: list[str] = []
    records = read_records(data, reject=unreadable.append, reading=Reading(on_bytes=read.append))
    num = sum(1 for _ in islice(records, _MOST_MEASURED)) + len(unreadable)
    share = num_valid / (num_valid + counts.num_invalid)
    return max(num_valid, round(size / sum(read) * num * share))
