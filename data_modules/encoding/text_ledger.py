"""The ledger of text runs: what happened to the documents of a split, in records, characters, bytes and tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from data_modules.cleaning.ledger import CleaningLedger
from data_modules.records.counts import LISTED, OnInvalid, RecordCounts

_SUMS = (
    "left_out",
    "num_invalid",
    "invalid_characters",
    "duplicates",
    "duplicate_characters",
    "documents",
    "characters",
    "bytes",
    "text_tokens",
    "special_tokens",
    "unknown_text",
)


@dataclass
class TextCounts:
    """What happened to documents between reading and writing them.

    Attributes:
        left_out: Documents left out by `train_fraction`; not counted anywhere else.
        num_invalid: Documents that the tokenizer rejected.
        invalid: The first hundred messages about them.
        reasons: Their number by reason.
        invalid_characters: Their characters, after cleaning.
        duplicates: Documents left out because another split holds the same one, or one of the same group.
        duplicate_characters: Their characters, after cleaning.
        documents: Documents written.
        characters: Their characters (code points).
        bytes: Their bytes in UTF-8.
        text_tokens: Tokens of their text.
        special_tokens: Start and end tokens.
        unknown_text: Documents written with text that the tokenizer replaces by its unknown token, or drops.
        unknown_first: Messages for the first hundred of them.
        cleaning: What cleaning did to all but those left out.
    """

    left_out: int = 0
    num_invalid: int = 0
    invalid: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    invalid_characters: int = 0
    duplicates: int = 0
    duplicate_characters: int = 0
    documents: int = 0
    characters: int = 0
    bytes: int = 0
    text_tokens: int = 0
    special_tokens: int = 0
    unknown_text: int = 0
    unknown_first: list[str] = field(default_factory=list)
    cleaning: CleaningLedger = field(default_factory=CleaningLedger)

    def add(self, other: TextCounts) -> None:
        """Add the counts of later documents."""
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.invalid = [*self.invalid, *other.invalid][:LISTED]
        self.unknown_first = [*self.unknown_first, *other.unknown_first][:LISTED]
        self.reasons += other.reasons
        self.cleaning += other.cleaning

    def reject(self, message: str, on_invalid: OnInvalid, num_characters: int) -> None:
        """Count a document that the tokenizer rejects, or raise the message.

        Raises:
            UserError: If `on_invalid` is `error`.
        """
        counts = RecordCounts(on_invalid)
        counts.reject(message)
        self.num_invalid += 1
        self.invalid_characters += num_characters
        self.invalid = [*self.invalid, *counts.invalid][:LISTED]
        self.reasons += counts.reasons

    def as_dict(self) -> dict[str, Any]:
        """The counts as JSON values."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {**values, "reasons": dict(self.reasons), "cleaning": self.cleaning.as_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TextCounts:
        """The counts from which `as_dict` made these values."""
        reasons, cleaning = Counter(values["reasons"]), CleaningLedger.from_dict(values["cleaning"])
        return cls(**{**values, "reasons": reasons, "cleaning": cleaning})

    def is_balanced(self) -> bool:
        """Whether every document and character is accounted for."""
        kept = self.cleaning
        documents = self.documents + self.duplicates + self.num_invalid
        characters = self.characters + self.duplicate_characters + self.invalid_characters
        return kept.records_kept == documents and kept.characters_kept == characters


def text_ledger(read: RecordCounts, counts: TextCounts) -> dict[str, Any]:
    """The ledger of some files as JSON values.

    records_read = invalid + dropped by cleaning + duplicates + documents. Characters, without those of unreadable
    records, add up in the same way.

    Args:
        read: Invalid records, those left out by a cap, and unknown fields.
        counts: What happened to the documents of this split.
    """
    assert counts.is_balanced(), f"documents are unaccounted for: {counts}"
    cleaning = counts.cleaning
    fields_of = {file: dict(sorted(names.items())) for file, names in read.unknown_fields.items()}
    return {
        "records_read": cleaning.records_read + read.num_invalid,
        "left_out": counts.left_out + read.left_out,
        "invalid": {
            "count": read.num_invalid + counts.num_invalid,
            "first": [*read.invalid, *counts.invalid][:LISTED],
            "reasons": dict(read.reasons + counts.reasons),
        },
        "duplicates": counts.duplicates,
        "dropped": cleaning.records_read - cleaning.records_kept,
        "documents": counts.documents,
        "characters": {
            "read": cleaning.characters_read,
            "cleaned": cleaning.characters_read - cleaning.characters_kept,
            "invalid": counts.invalid_characters,
            "duplicates": counts.duplicate_characters,
            "kept": counts.characters,
        },
        "bytes": counts.bytes,
        "tokens": {"text": counts.text_tokens, "special": counts.special_tokens},
        "unknown_text": {"count": counts.unknown_text, "first": counts.unknown_first},
        "cleaning": cleaning.as_dict(),
        **({"unknown_fields": fields_of} if fields_of else {}),
    }


def merged(ledgers: list[dict[str, Any]]) -> dict[str, Any]:
    """The ledger of several sources together.

    Args:
        ledgers: Values of `text_ledger`, at least one.
    """
    whole = ledgers[0]
    for other in ledgers[1:]:
        whole = _sum(whole, other)
    return whole


def _sum(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name in [*one, *(name for name in other if name not in one)]:
        a, b = one.get(name), other.get(name)
        if a is None or b is None:
            result[name] = b if a is None else a
        elif name == "cleaning":
            result[name] = (CleaningLedger.from_dict(a) + CleaningLedger.from_dict(b)).as_dict()
        elif isinstance(a, dict):
            result[name] = _sum(a, b)
        else:
            result[name] = [*a, *b][:LISTED] if isinstance(a, list) else a + b
    return result
