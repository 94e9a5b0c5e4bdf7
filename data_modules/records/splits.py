"""Which records belong to which split. No record is in two splits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, get_args

from data_modules.errors import UserError
from data_modules.records.column_proposals import proposal
from data_modules.records.columns import check_columns, in_columns, renamed
from data_modules.records.content_keys import KeepTogether, among_lowest, content_key, hash_of
from data_modules.records.conversation import Conversation
from data_modules.records.counts import OnInvalid, RecordCounts
from data_modules.records.data_files import skipped_files
from data_modules.records.formats import FormatName, recognise_format, to_conversation
from data_modules.records.kept_records import KeptRecords, Keyed
from data_modules.records.readers import read_records
from data_modules.records.record import Record
from data_modules.records.rejections import count_reasons
from data_modules.records.text_lines import TxtDocuments
from data_modules.records.thinking import Thinking
from data_modules.records.turn_order import Consecutive, FirstAnswer, TurnRules
from data_modules.records.txt_notices import txt_notices
from data_modules.setting_checks import check_choice

Samples = Literal["conversation", "answer"]

Paths = str | list[str] | None

TextUse = Literal["document", "question", "beginning"]


@dataclass(frozen=True)
class Sources:
    """Where the records of every split come from and how they are read.

    Attributes:
        files: Files, folders or hub names by split. A split without files is held out of `train`.
        fractions: Share of `train` held out for each split without files.
        train_fraction: Share of the remaining records to train on.
        format: A name in FORMATS. None: detected from the fields, file by file.
        on_invalid: Whether an invalid record stops the run or is dropped.
        samples: `answer` makes a sample of every answer in a training conversation.
        columns: The column that each field is read from, for fields with other names in the files.
        turn_rules: What is done with turns that are out of order.
        keep_together: Which conversations count as the same and stay in one split.
        cap: Maximum number of training records, chosen by a hash of each.
        require_answer: Whether a bare prompt is invalid.
        text: How to treat plain text (a line of a .txt file, or a record with only the field `text`): as a finished
            document, a question, or the beginning of a text to continue.
        txt_documents: What a document is in a .txt file.
    """

    files: dict[str, list[str]]
    fractions: dict[str, float] = field(default_factory=dict)
    train_fraction: float = 1.0
    format: str | None = None
    on_invalid: OnInvalid = "error"
    samples: Samples = "conversation"
    columns: dict[str, str] = field(default_factory=dict)
    turn_rules: TurnRules = field(default_factory=TurnRules)
    keep_together: KeepTogether = "exact"
    cap: int | None = None
    require_answer: bool = True
    text: TextUse = "document"
    txt_documents: TxtDocuments = "line"

    def __post_init__(self) -> None:
        if not 0 < self.train_fraction <= 1:
            raise UserError(f"--data.train_fraction {self.train_fraction}: expected a share above 0, at most 1.")
        check_choice("format", self.format, (None, *get_args(FormatName)))
        check_choice("on_invalid", self.on_invalid, get_args(OnInvalid))
        check_choice("samples", self.samples, get_args(Samples))
        check_choice("consecutive", self.turn_rules.consecutive, get_args(Consecutive))
        check_choice("first_answer", self.turn_rules.first_answer, get_args(FirstAnswer))
        check_choice("thinking", self.turn_rules.thinking, get_args(Thinking))
        check_choice("keep_together", self.keep_together, get_args(KeepTogether))
        check_choice("txt_documents", self.txt_documents, get_args(TxtDocuments))
        check_columns(self.columns, self.format)

    def of_prompts(self, files: list[str]) -> Sources:
        """Files of prompts to answer, read in the same way."""
        return Sources(
            {"predict": files},
            format=self.format,
            on_invalid=self.on_invalid,
            columns=self.columns,
            turn_rules=self.turn_rules,
            require_answer=False,
        )

    @property
    def splits(self) -> list[str]:
        """The splits, held-out ones first, so that their records can be kept out of training."""
        held_out = [split for split in ("test", "val", "predict") if split in self.files or self.shares.get(split)]
        return [*held_out, *(["train"] if "train" in self.files else [])]

    @property
    def all_files(self) -> list[str]:
        """The files of all splits, as they are named."""
        return [file for files in self.files.values() for file in files]

    @property
    def shares(self) -> dict[str, float]:
        """The fractions of `train` that are actually held out."""
        if "train" not in self.files:
            return {}
        return {split: share for split, share in self.fractions.items() if share and split not in self.files}


def as_list(paths: Paths) -> list[str]:
    """One or several files as a list; None: an empty one."""
    return [paths] if isinstance(paths, str) else list(paths or [])


def given_files(**paths: Paths) -> dict[str, list[str]]:
    """The files of each split that has any."""
    return {split: as_list(given) for split, given in paths.items() if given}


def held_out_fractions(val: float, test: float) -> dict[str, float]:
    """The shares of `train` to hold out for each split.

    Raises:
        UserError: If they are not shares.
    """
    if not (val >= 0 and test >= 0 and val + test < 1):  # NaN fails every comparison
        raise UserError(
            f"--data.val_fraction {val} --data.test_fraction {test}: expected shares of the training records, at least "
            "0 each and less than 1 together."
        )
    return {"val": val, "test": test}


def skipped_in(sources: Sources) -> dict[str, list[str]]:
    """Lines that name the files skipped in the folders of each split."""
    return {split: [line for file in files for line in skipped_files(file)] for split, files in sources.files.items()}


def notices_in(sources: Sources, *, asks_for_unit: bool) -> dict[str, list[str]]:
    """Lines about .txt files of each split that should perhaps be read differently; see `txt_notices`.

    Args:
        sources: The files.
        asks_for_unit: Whether `--data.txt_documents` is an option of the run.
    """
    is_line = asks_for_unit and sources.txt_documents == "line"
    return {
        split: [line for file in files for line in txt_notices(file, asks_for_unit=is_line)]
        for split, files in sources.files.items()
    }


def keys_of(conversation: Conversation, keep_together: KeepTogether = "exact") -> list[str]:
    """The keys that a conversation must not share with one of another split; the first decides its split.

    A preference pair has a key for its prompt with either answer, so that no answer is in two splits; a rated answer
    has that of the same answer without a rating.

    Args:
        conversation: Any conversation.
        keep_together: Which conversations count as the same.
    """
    halves = [half for half in (replace(conversation, rejected=None), conversation.rejected) if half is not None]
    halves = [half for half in halves if half.is_answered] or halves
    keys = (conversation.group_key, *(content_key(half, keep_together) for half in halves))
    return list(dict.fromkeys(filter(None, keys)))


def split_of(key: str, fractions: dict[str, float], train_fraction: float = 1.0) -> str | None:
    """The split of all conversations with a key, from its hash: other records and their order do not matter.

        0           test_fraction            1 - val_fraction           1
        |   test    |         train          |            val           |

    Each held-out split has its own end of the line, so that changing its share exchanges records with `train` only.
    What `train_fraction` leaves out depends on a second hash: changing any share never exchanges two training records.

    Args:
        key: The first of `keys_of`.
        fractions: Share of each held-out split, `val` and `test`.
        train_fraction: Share of the remaining records to train on. A larger share contains every smaller one; held-out
            records do not depend on it.

    Returns:
        `train`, a key of `fractions`, or None if left out.
    """
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    # 53 bits, so that both are below 1 as floats
    point, kept = ((int.from_bytes(half, "big") >> 11) / 2**53 for half in (digest[:8], digest[8:]))
    if point < fractions.get("test", 0.0):
        return "test"
    if point >= 1 - fractions.get("val", 0.0):
        return "val"
    return "train" if kept < train_fraction else None


def read_conversations(split: str, sources: Sources, counts: RecordCounts) -> Iterator[Conversation]:
    """Read the valid conversations of a split. Invalid records are counted for the split whose files contain them.

    Raises:
        UserError: If all records are invalid, or any is and `on_invalid` is `error`.
    """
    for conversation, _ in _read_split(split, sources, counts, has_keys=_is_shared(sources)):
        yield conversation


def _is_shared(sources: Sources) -> bool:
    """Whether not every record of train is trained on."""
    return bool(sources.shares) or sources.train_fraction < 1


def _read_split(
    split: str, sources: Sources, counts: RecordCounts, *, has_keys: bool, kept: KeptRecords | None = None
) -> Iterator[Keyed]:
    own_files = split in sources.files
    files = sources.files[split if own_files else "train"]
    # a held-out split is read from train's files, and train already counts their invalid records
    counter = counts if own_files else RecordCounts(sources.on_invalid)
    num_valid = 0
    is_chosen = _is_shared(sources) and (split == "train" or not own_files)
    settings = replace(sources, files={}, fractions={}, train_fraction=1.0, cap=None)  # of reading
    for source in files:
        read = partial(_read_source, source, sources, has_keys)
        records = kept.read((source, repr(settings), has_keys), counter, read) if kept else read(counter)
        for conversation, keys in records:
            num_valid += 1
            if is_chosen:
                place = split_of(keys[0], sources.shares, sources.train_fraction)
                if place != split:
                    counter.records_read -= 1
                    counts.left_out += split == "train" and place is None
                    continue
            yield conversation, keys
    if counter.num_invalid and not num_valid:
        raise UserError(all_invalid(files, counter))
    if not own_files:
        counts.records_read = counter.records_read - counter.num_invalid
        counts.formats = counter.formats


def read_splits(sources: Sources) -> Iterator[tuple[str, Conversation]]:
    """Every conversation with its split, held-out splits first, without duplicates across splits."""
    taken: set[str] = set()
    kept = KeptRecords()
    for split in sources.splits:
        for conversation in without_duplicates(split, sources, RecordCounts(sources.on_invalid), taken, kept):
            yield split, conversation


def all_invalid(files: list[str], counts: RecordCounts, *, has_format: bool = True) -> str:
    """The message for files without a single valid record.

    Args:
        files: The files.
        counts: Their records.
        has_format: Whether `--data.format` is an option of the run.
    """
    return (
        f"{', '.join(files)}: all {counts.num_invalid:,} records are invalid: "
        f"{count_reasons(counts.reasons, counts.invalid)}. Correct them{', or set `--data.format`' * has_format}."
    )


def _read_source(source: str, sources: Sources, has_keys: bool, counts: RecordCounts) -> Iterator[Keyed]:
    layouts: dict[str, str] = {}
    rejected = counts.num_invalid
    for record in read_records(source, reject=counts.reject):
        try:
            conversation = _conversation(record, sources, layouts, counts)
        except UserError as error:
            counts.reject(in_columns(str(error), record, sources.columns))
            continue
        counts.records_read += 1
        yield conversation, keys_of(conversation, sources.keep_together) if has_keys else []
    counts.records_read += counts.num_invalid - rejected


def _conversation(record: Record, sources: Sources, layouts: dict[str, str], counts: RecordCounts) -> Conversation:
    record = renamed(record, sources.columns, counts.columns_found)
    is_prompt = sources.text != "document" and record.fields.keys() == {"text"}  # applies to any training format
    name = "text" if is_prompt else sources.format or _format_of(record, layouts, counts)
    conversation = to_conversation(record, name, sources.turn_rules, counts)
    if sources.require_answer:
        _check_answer(record, conversation)
    else:
        conversation = replace(conversation, rejected=None)
    return conversation.as_question() if sources.text == "question" and conversation.is_text else conversation


def _format_of(record: Record, layouts: dict[str, str], counts: RecordCounts) -> str:
    """The format of a file, detected from its first record with a known one."""
    file = record.file
    if file not in layouts:
        layouts[file] = recognise_format(record)
        counts.formats.append(f"{file}: {layouts[file]} (recognised)")
    return layouts[file]


def _check_answer(record: Record, conversation: Conversation) -> None:
    """Refuse a conversation without an answer to train on."""
    if conversation.is_unpaired:
        return
    if not conversation.is_answered:
        proposed = "" if record.columns else proposal(record.fields, has_prompt=True)
        raise UserError(
            f"{record.origin}: no answer to train on (fields: {record.field_names}); the last turn must be the "
            f"assistant's and not blank. Complete the record, {f'set {proposed}, ' * bool(proposed)}"
            "or set `--data.on_invalid drop`."
        )
    if not conversation.is_trainable:
        raise UserError(
            f"{record.origin}: no answer to train on: every answer has the weight 0, so nothing would be trained. "
            "Give one the weight 1, or set `--data.on_invalid drop`."
        )


def without_duplicates(
    split: str, sources: Sources, counts: RecordCounts, taken: set[str], kept: KeptRecords | None = None
) -> Iterator[Conversation]:
    """The conversations of a split, without those that an earlier split contains or shares a group with.

    Training records beyond the cap are left out too, and counted as such.

    Args:
        split: Its name.
        sources: Where its records come from.
        counts: Counts them.
        taken: The keys of earlier splits; those of this one are added if it is held out.
        kept: Keeps the records for other splits of the same files. None: read the files.
    """
    own: set[str] = set()
    fits = _under_cap(sources, taken, kept) if split == "train" and sources.cap else None
    for conversation, keys in _read_split(split, sources, counts, has_keys=True, kept=kept):
        if not taken.isdisjoint(keys):
            counts.duplicates += 1
            continue
        if fits and not fits(conversation):
            counts.records_read -= 1
            counts.left_out += 1
            continue
        if split != "train":
            own.update(keys)
        yield conversation
    taken |= own


def _under_cap(sources: Sources, taken: set[str], kept: KeptRecords | None) -> Callable[[Conversation], bool]:
    """Whether a training record is one of those with the lowest hashes; call it once per record, in any order."""
    records = without_duplicates("train", replace(sources, cap=None), RecordCounts(sources.on_invalid), taken, kept)
    fits = among_lowest(map(_hash, records), sources.cap or 0)
    return lambda conversation: fits(_hash(conversation))


def _hash(conversation: Conversation) -> int:
    return hash_of(content_key(conversation))
