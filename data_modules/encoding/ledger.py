"""The ledger records what happened to the data on its way to examples. Everything lost is counted here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from data_modules.encoding.losses import Account
from data_modules.records.counts import LISTED, RecordCounts
from data_modules.records.rejections import count_reasons
from data_modules.rendering.masking import MASKS, LossMask
from data_modules.rendering.segments import RARE_KINDS, SegmentKind
from data_modules.wording import counted

KINDS = tuple(kind for kind in SegmentKind if kind is not SegmentKind.PADDING)

RECORDS = ("conversations", "documents")

_COUNTS = (
    "records_read",
    "left_out",
    "samples_added",
    "num_invalid",
    "duplicates",
    "dropped",
    "truncated",
    "split",
    "examples",
    "unknown_text",
    "dialogues_read",
    "dialogues_kept",
    "untrained_ends",
    "pairs",
    "unpaired",
    "rejected_tokens",
)

_COUNTERS = (
    "reasons",
    "supervised_tokens_lost",
    "end_tokens_lost",
    "answers_read",
    "answers_cut",
    "answers_lost",
    "lengths",
    "over_long",
    "changed_turns",
)


@dataclass
class Ledger(RecordCounts):
    """Counts for one split.

    For records, read + samples_added = invalid + duplicates + dropped + kept. For tokens of each kind, read + repeated
    = dropped + truncated + kept; an answer that becomes the last of a part changes kind.

    Attributes:
        samples_added: Extra conversations from expanding each answer into its own sample.
        dropped: Conversations that were too long and left out.
        truncated: Conversations that lost tokens but were kept, possibly also counted in `split`.
        split: Conversations split into several examples.
        examples: Examples made.
        unknown_text: Conversations with text that the tokenizer replaces by its unknown token, or drops.
        unknown_first: Messages for the first hundred of them.
        lengths: Number of examples by length in tokens.
        whole_lengths: Number of `conversations` and of `documents` by length before shortening.
        over_long: Number of `conversations` and `documents` that are longer than the limit.
        supervised_tokens_lost: By mask, tokens supervised in their whole conversation that are in no example.
        end_tokens_lost: By mask, the end tokens among them.
        answers_read: By mask, supervised answers before shortening.
        answers_cut: By mask, answers that lost their end.
        answers_lost: By mask, answers that were lost completely.
        dialogues_read: Conversations with several answers.
        dialogues_kept: Dialogues with an example that still has several answers.
        untrained_ends: Examples that end with an answer that their record excludes from training.
        pairs: Examples that are preference pairs; all other counts are of their chosen documents.
        unpaired: Those of them that have only one answer, which was rated on its own; the other document is the prompt.
        rejected_tokens: Tokens in their rejected documents, prompts included.
        tokens: Tokens by kind, for each of read, kept, dropped, truncated and repeated.
        account: Tokens by the kind that they have in whole conversations, and why those that were lost were lost.
    """

    samples_added: int = 0
    dropped: int = 0
    truncated: int = 0
    split: int = 0
    examples: int = 0
    unknown_text: int = 0
    unknown_first: list[str] = field(default_factory=list)
    dialogues_read: int = 0
    dialogues_kept: int = 0
    untrained_ends: int = 0
    pairs: int = 0
    unpaired: int = 0
    rejected_tokens: int = 0
    supervised_tokens_lost: Counter[str] = field(default_factory=Counter)
    end_tokens_lost: Counter[str] = field(default_factory=Counter)
    answers_read: Counter[str] = field(default_factory=Counter)
    answers_cut: Counter[str] = field(default_factory=Counter)
    answers_lost: Counter[str] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)
    whole_lengths: dict[str, Counter[int]] = field(default_factory=lambda: {name: Counter() for name in RECORDS})
    over_long: Counter[str] = field(default_factory=Counter)
    tokens: dict[str, Counter[SegmentKind]] = field(
        default_factory=lambda: {r: Counter() for r in ("read", "kept", "dropped", "truncated", "repeated")}
    )
    account: Account = field(default_factory=Account)

    def count_unknown_text(self, message: str) -> None:
        """Count a conversation with text that the tokenizer cannot represent.

        Args:
            message: Where it is and what is lost.
        """
        self.unknown_text += 1
        if len(self.unknown_first) < LISTED:
            self.unknown_first.append(message)

    def count_length(self, length: int, limit: int, *, is_text: bool) -> None:
        """Count the length of a conversation or document before shortening."""
        name = RECORDS[is_text]
        self.whole_lengths[name][length] += 1
        self.over_long[name] += length > limit

    def count_answers(
        self, *, read: Collection[SegmentKind], cut: Collection[SegmentKind] = (), lost: Collection[SegmentKind] = ()
    ) -> None:
        """Count the answers of one conversation, by the kind that they have in it.

        Args:
            read: Answers before shortening.
            cut: Answers that lost their end.
            lost: Answers with no token left.
        """
        for mask in MASKS.values():
            for counts, kinds in ((self.answers_read, read), (self.answers_cut, cut), (self.answers_lost, lost)):
                if kinds:
                    counts[mask.name] += sum(map(mask.supervises, kinds))

    def count_end_tokens(self, lost: Counter[SegmentKind]) -> None:
        """Count the end tokens that one conversation lost, by the kind that they have in it."""
        for mask in MASKS.values():
            self.end_tokens_lost[mask.name] += _supervised(lost, mask)

    def count_tokens(self, read: Counter[SegmentKind], kept: Counter[SegmentKind], account: Account) -> None:
        """Count the tokens of one conversation.

        Args:
            read: Its tokens before shortening, by kind.
            kept: The tokens of its examples, by kind.
            account: What became of each token.
        """
        self.tokens["read"] += read
        self.tokens["kept"] += kept
        if read != kept:
            self.tokens["truncated" if kept else "dropped"] += read - kept
            self.tokens["repeated"] += kept - read
        self.account.add(account)
        lost = account.all_lost
        for mask in MASKS.values() if lost else ():
            self.supervised_tokens_lost[mask.name] += _supervised(lost, mask)

    def count_kept_tokens(self, counts: Counter[SegmentKind]) -> None:
        """Count the tokens of a conversation that is its own example, by kind."""
        for counter in (self.tokens["read"], self.tokens["kept"], self.account.read, self.account.kept):
            counter.update(counts)

    def add(self, other: Ledger) -> None:
        """Add the counts of another ledger of the same split; its messages go last."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.invalid = [*self.invalid, *other.invalid][:LISTED]
        self.unknown_first = [*self.unknown_first, *other.unknown_first][:LISTED]
        self.formats = [*self.formats, *other.formats]
        for name in _COUNTERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.columns_found |= other.columns_found
        for file, names in other.unknown_fields.items():
            self.unknown_fields[file] += names
        for name, lengths in other.whole_lengths.items():
            self.whole_lengths[name] += lengths
        for reason, counts in other.tokens.items():
            self.tokens[reason] += counts
        self.account.add(other.account)

    @property
    def num_encoded(self) -> int:
        """Number of conversations and documents that were encoded, kept or not."""
        return sum(lengths.total() for lengths in self.whole_lengths.values())

    def is_balanced(self) -> bool:
        """Whether every record and sample is accounted for."""
        return self.records_read + self.samples_added == self.num_invalid + self.duplicates + self.num_encoded

    def length_percentiles(self) -> dict[str, int]:
        """Example lengths in tokens: minimum, 50th, 90th and 99th percentile, maximum."""
        points = {"min": 0, "p50": 50, "p90": 90, "p99": 99, "max": 100}
        return _percentiles(self.lengths, points, method="nearest")

    def whole_length_percentiles(self) -> dict[str, dict[str, int]]:
        """Lengths before shortening: 50th, 95th and 99th percentile, maximum, and counts."""
        points = {"p50": 50, "p95": 95, "p99": 99, "max": 100}
        return {
            name: {
                "count": lengths.total(),
                "over_long": self.over_long[name],
                **_percentiles(lengths, points, method="inverted_cdf"),
            }
            for name, lengths in self.whole_lengths.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """The ledger as plain JSON values."""
        return {
            "formats": self.formats,
            "records_read": self.records_read,
            "left_out": self.left_out,
            "samples_added": self.samples_added,
            "invalid": {"count": self.num_invalid, "first": self.invalid, "reasons": dict(self.reasons)},
            "duplicates": self.duplicates,
            "dropped": self.dropped,
            "truncated": self.truncated,
            "split": self.split,
            "examples": self.examples,
            "unknown_text": {"count": self.unknown_text, "first": self.unknown_first},
            "supervised_tokens_lost": {name: self.supervised_tokens_lost[name] for name in MASKS},
            "end_tokens_lost": {name: self.end_tokens_lost[name] for name in MASKS},
            "answers": {
                name: {
                    "read": self.answers_read[name],
                    "cut": self.answers_cut[name],
                    "lost": self.answers_lost[name],
                }
                for name in MASKS
            },
            "dialogues": {"read": self.dialogues_read, "kept": self.dialogues_kept},
            "length": self.length_percentiles(),
            "length_before": self.whole_length_percentiles(),
            "tokens": {reason: _by_name(counts) for reason, counts in self.tokens.items()},
            "tokens_by_kind_in_record": self.account.by_kind(),
            "supervised_tokens": {name: self.account.under(mask) for name, mask in MASKS.items()},
            **self._of_fields(),
        }

    def _of_fields(self) -> dict[str, Any]:
        """What was done with fields and turns; nothing if there is nothing to report."""
        counts = {
            "unknown_fields": {file: dict(sorted(names.items())) for file, names in self.unknown_fields.items()},
            "changed_turns": dict(self.changed_turns),
            "untrained_ends": self.untrained_ends,
            "pairs": self.pairs,
            "unpaired": self.unpaired,
            "rejected_tokens": self.rejected_tokens,
        }
        return {name: count for name, count in counts.items() if count}


def _by_name(counts: Counter[SegmentKind]) -> dict[str, int]:
    # data without these kinds has the same ledger as before they existed
    kinds = (kind for kind in KINDS if counts[kind] or kind not in RARE_KINDS)
    return {kind.name.lower(): counts[kind] for kind in kinds}


def _percentiles(
    lengths: Counter[int], points: dict[str, int], *, method: Literal["nearest", "inverted_cdf"]
) -> dict[str, int]:
    if not lengths:
        return {}
    repeated = np.repeat(list(lengths), list(lengths.values()))
    return dict(zip(points, map(int, np.percentile(repeated, list(points.values()), method=method)), strict=True))


def why_empty(entry: dict[str, Any], max_length: int) -> str:
    """Explain why a split has no examples.

    Args:
        entry: Its `Ledger.to_dict()`.
        max_length: Maximum number of tokens in an example.
    """
    invalid = entry["invalid"]
    parts = {
        f"longer than {max_length} token{'s' * (max_length != 1)}": entry["dropped"],
        "also in a held-out split": entry["duplicates"],
        "left out by `--data.train_fraction`": entry["left_out"],
        "invalid": invalid["count"],
    }
    why = ", ".join(f"{count:,} {what}" for what, count in parts.items() if count) or "none were read"
    return f"{why}: {count_reasons(invalid['reasons'], invalid['first'])}" if invalid["count"] else why


def is_limit_too_small(entry: dict[str, Any]) -> bool:
    """Whether a split is empty mainly because its records are too long.

    Args:
        entry: Its `Ledger.to_dict()`.
    """
    others = max(entry["duplicates"], entry["left_out"], entry["invalid"]["count"])
    return bool(entry["dropped"]) and entry["dropped"] >= others


def too_small_limit(entry: dict[str, Any], split: str, max_length: int) -> str:
    """The message if `is_limit_too_small`: how long the records are, and what to raise.

    Args:
        entry: The split's `Ledger.to_dict()`.
        split: Name of the split.
        max_length: Maximum number of tokens in an example.
    """
    before = max(entry["length_before"].values(), key=lambda lengths: lengths["count"])
    return (
        f"--data.max_length {max_length} is too small: none of the {split} records fit "
        f"({why_empty(entry, max_length)}). Raise it: their median length is {before['p50']:,} tokens, the longest has "
        f"{before['max']:,}."
    )


def is_plain_text(ledger: dict[str, Any]) -> bool:
    """Whether a split contains only plain text, no conversations.

    Args:
        ledger: A `Ledger.to_dict()`.
    """
    read = ledger["tokens"]["read"]
    return read["text"] > 0 and not read["user"]


def unused_fields(ledger: Mapping[str, Any]) -> list[str]:
    """One line for each file with fields that nothing reads.

    Args:
        ledger: A `Ledger.to_dict()`, or of one only the `unknown_fields`.
    """
    lines = []
    for file, names in ledger.get("unknown_fields", {}).items():
        (first, count), *others = names.items()
        shown = [f"{first} ({counted(count, 'record')})", *(f"{name} ({count:,})" for name, count in others)]
        hint = "; a label rates an answer only if it is true or false" if "label" in names else ""
        lines.append(f"{file}: fields not used: {', '.join(shown)}{hint}")
    return lines


def _supervised(counts: Counter[SegmentKind], mask: LossMask) -> int:
    """How many of the counted tokens the mask supervises."""
    return sum(count for kind, count in counts.items() if mask.supervises(kind))


def ledger_rows(ledgers: dict[str, dict[str, Any]], mask: str) -> list[tuple[str, ...]]:
    """The ledgers of several splits as rows of a table, header first.

    Args:
        ledgers: `Ledger.to_dict()` by split.
        mask: The mask for which lost tokens are shown.
    """
    columns = ledgers.values()
    rows = [("", *ledgers)]
    for key in ("records_read", "samples_added", "duplicates", "dropped", "truncated", "split", "examples"):
        rows.append((key.replace("_", " "), *(f"{entry[key]:,}" for entry in columns)))
    rows.insert(3, ("invalid", *(f"{entry['invalid']['count']:,}" for entry in columns)))
    if any(entry["left_out"] for entry in columns):
        rows.insert(2, ("left out", *(f"{entry['left_out']:,}" for entry in columns)))
    for key in ("pairs", "unpaired", "rejected_tokens"):
        if any(entry.get(key) for entry in columns):
            rows.append((key.replace("_", " "), *(f"{entry.get(key, 0):,}" for entry in columns)))
    unknown = [entry["unknown_text"]["count"] for entry in columns]
    if any(unknown):
        rows.append(("with unknown text", *(f"{count:,}" for count in unknown)))
    for kind in KINDS:
        counts = [entry["tokens"]["kept"].get(kind.name.lower(), 0) for entry in columns]
        if any(counts):
            rows.append((f"{kind.name.lower().replace('_', ' ')} tokens", *(f"{count:,}" for count in counts)))
    for key in ("supervised_tokens_lost", "end_tokens_lost"):
        rows.append((key.replace("_", " "), *(f"{entry[key][mask]:,}" for entry in columns)))
    for point in ("p50", "p90", "max"):
        rows.append((f"length {point}", *(f"{entry['length'].get(point, 0):,}" for entry in columns)))
    return rows
