"""Splits of encoded examples, made once and cached on disk under a key of everything that shapes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from data_modules.conversation import Conversation
from data_modules.counts import OnInvalid, RecordCounts
from data_modules.encoded_cache import is_whole, new_folder
from data_modules.encoding import Encoder
from data_modules.encoding_pool import ChunkEncoder, EncodingPool, Samples
from data_modules.example_store import ExampleStore, write_batches
from data_modules.formats import recognise_format, to_conversation
from data_modules.ledger import Ledger
from data_modules.progress import Progress
from data_modules.readers import read_records, source_fingerprint
from data_modules.record import Record
from data_modules.rejections import count_reasons

TextUse = Literal["document", "question", "beginning"]

_VERSION = 4
"""Bump when the same records would be encoded differently, so that no stale cache is read."""


@dataclass(frozen=True)
class Sources:
    """Where the records of every split come from and how they are read.

    Attributes:
        files: Split name to files, folders or hub names. A split without files is held out of `train`.
        fractions: Share of `train` that is held out for each split without files.
        train_fraction: Share of what is not held out that is trained on.
        format: A name in FORMATS; None: recognised from the fields, file by file.
        on_invalid: Whether an invalid record ends the run or is dropped.
        samples: `answer` makes one sample of every answer of a training conversation.
        require_answer: Whether a bare prompt is invalid.
        text: What a record of plain text (a line of a .txt file, or nothing but the field `text`) is: a finished
            document, a question, or the beginning of a text to continue.
    """

    files: dict[str, list[str]]
    fractions: dict[str, float] = field(default_factory=dict)
    train_fraction: float = 1.0
    format: str | None = None
    on_invalid: OnInvalid = "error"
    samples: Samples = "conversation"
    require_answer: bool = True
    text: TextUse = "document"

    @property
    def splits(self) -> list[str]:
        """Held-out splits first: what they hold is kept out of training."""
        held_out = [split for split in ("test", "val", "predict") if split in self.files or self.shares.get(split)]
        return [*held_out, *(["train"] if "train" in self.files else [])]

    @property
    def shares(self) -> dict[str, float]:
        """The fractions of `train` that are really held out."""
        if "train" not in self.files:
            return {}
        return {split: share for split, share in self.fractions.items() if share and split not in self.files}


def split_of(conversation: Conversation, fractions: dict[str, float], train_fraction: float = 1.0) -> str | None:
    """The split of a conversation, from a hash of its group or content: it depends on no other record and no order.

    Args:
        conversation: Any.
        fractions: Share of each held-out split.
        train_fraction: Share of the others that is trained on. A larger share includes all of a smaller one; what is
            held out does not depend on it.

    Returns:
        `train`, a key of `fractions`, or None: left out.
    """
    key = conversation.group_key or conversation.content_key()
    point = int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") / 2**64
    for split, fraction in fractions.items():
        if point < fraction:
            return split
        point -= fraction
    return "train" if train_fraction == 1 or point < train_fraction * (1 - sum(fractions.values())) else None


def encode_sources(sources: Sources, encoder: Encoder, cache_dir: Path, *, processes: int = 1) -> Path:
    """Encode every split, or find it encoded already and undamaged.

    Args:
        sources: What is read.
        encoder: What encodes it.
        cache_dir: Where encoded data is kept.
        processes: How many processes encode, at most. What they make does not depend on it.

    Returns:
        A folder with one `<split>.arrow` a split and `ledgers.json`.

    Raises:
        ValueError: If a record is invalid and the policy is `error`, or a file cannot be read.
        ChildProcessError: If a process died.
    """
    _check_outside(cache_dir, sources)
    folder = cache_dir / cache_key(sources, encoder)
    names = [*(f"{split}.arrow" for split in sources.splits), "ledgers.json"]
    if is_whole(folder, names):
        return folder
    with new_folder(folder, names) as partial:
        ledgers = _encode_splits(sources, encoder, partial, processes)
        (partial / "ledgers.json").write_text(json.dumps(ledgers, indent=1, ensure_ascii=False), encoding="utf-8")
    return folder


def _check_outside(cache_dir: Path, sources: Sources) -> None:
    """The cache holds .json files, which would be taken for records."""
    for split, files in sources.files.items():
        for file in files:
            if Path(file).is_dir() and cache_dir.resolve().is_relative_to(Path(file).resolve()):
                raise ValueError(
                    f"--data.cache_dir {cache_dir}: is inside the folder {file} of --data.{split}, so its files would "
                    "be read as records; choose another folder."
                )


def load_split(folder: Path, split: str) -> ExampleStore | None:
    """The examples of a split; None if there is no such split."""
    path = folder / f"{split}.arrow"
    return ExampleStore(path) if path.exists() else None


def load_ledgers(folder: Path) -> dict[str, dict[str, Any]]:
    """What happened to the data of each split, training first."""
    ledgers: dict[str, dict[str, Any]] = json.loads((folder / "ledgers.json").read_text(encoding="utf-8"))
    return {split: ledgers[split] for split in ("train", "val", "test", "predict") if split in ledgers}


def cache_key(sources: Sources, encoder: Encoder) -> str:
    """A digest of everything that shapes the encoded data, including the paths in its origins."""
    return _digest([sources.files, data_fingerprint(sources, encoder)])


def data_fingerprint(sources: Sources, encoder: Encoder) -> str:
    """A digest of the contents of the files and how they are encoded, wherever the files are."""
    return _digest(data_identity(sources, encoder))


def data_identity(sources: Sources, encoder: Encoder) -> dict[str, Any]:
    """The contents of the files and how they are encoded, by the names of the settings."""
    tokenizer = encoder.tokenizer
    return {
        "version of the encoding": _VERSION,
        **{f"records of --data.{split}": records_digest(files) for split, files in sources.files.items()},
        **{f"--data.{split}_fraction": share for split, share in sources.fractions.items()},
        "--data.train_fraction": sources.train_fraction,
        "--data.format": sources.format,
        "--data.on_invalid": sources.on_invalid,
        "--data.samples": sources.samples,
        "answers wanted": sources.require_answer,
        # only where it is not the usual one, so that what older runs and caches are named by stays the same
        **({"plain text is": sources.text} if sources.text != "document" else {}),
        "tokenizer": _digest([tokenizer.backend_tokenizer.to_str(), tokenizer.bos_token, tokenizer.eos_token]),
        "--data.template": encoder.template.name,
        "layout of the template": _digest(
            repr(encoder.template) if encoder.template.name != "tokenizer" else tokenizer.chat_template
        ),
        "--data.max_length": encoder.max_length,
        "--data.over_long": encoder.over_long,
    }


def records_digest(files: Sequence[str]) -> str:
    """A digest of the contents of files, wherever they are."""
    return _digest([source_fingerprint(file) for file in files])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def read_conversations(split: str, sources: Sources, counts: RecordCounts) -> Iterator[Conversation]:
    """The valid conversations of a split. Invalid records count in the split whose files hold them.

    Raises:
        ValueError: If all records are invalid, or one is and the policy is `error`.
    """
    own_files = split in sources.files
    files = sources.files[split if own_files else "train"]
    # a held-out split is read from train's files, where its invalid records are counted already
    counter = counts if own_files else RecordCounts(sources.on_invalid)
    num_valid = 0
    for source in files:
        for conversation in _read_source(source, sources, counter):
            num_valid += 1
            if split == "train" or not own_files:
                place = split_of(conversation, sources.shares, sources.train_fraction)
                if place != split:
                    counter.records_read -= 1
                    counts.left_out += split == "train" and place is None
                    continue
            yield conversation
    if counter.num_invalid and not num_valid:
        raise ValueError(all_invalid(files, counter))
    if not own_files:
        counts.records_read = counter.records_read - counter.num_invalid
        counts.formats = counter.formats


def read_splits(sources: Sources) -> Iterator[tuple[str, Conversation]]:
    """Every conversation with its split, held-out splits first: what training really reads, each once."""
    taken: set[str] = set()
    for split in sources.splits:
        for conversation in without_duplicates(split, sources, RecordCounts(sources.on_invalid), taken):
            yield split, conversation


def all_invalid(files: list[str], counts: RecordCounts) -> str:
    """What to tell the user where no record of some files is valid."""
    return (
        f"{', '.join(files)}: all of the {counts.num_invalid:,} records are invalid: "
        f"{count_reasons(counts.reasons, counts.invalid)}. Correct them, or name their format with `--data.format`."
    )


def _read_source(source: str, sources: Sources, counts: RecordCounts) -> Iterator[Conversation]:
    layouts: dict[str, str] = {}
    rejected = counts.num_invalid
    for record in read_records(source, reject=counts.reject):
        try:
            conversation = _conversation(record, sources, layouts, counts)
            if sources.require_answer and not conversation.is_answered:
                raise ValueError(_unanswered(record))
        except ValueError as error:
            counts.reject(str(error))
            continue
        counts.records_read += 1
        yield conversation
    counts.records_read += counts.num_invalid - rejected


def _conversation(record: Record, sources: Sources, layouts: dict[str, str], counts: RecordCounts) -> Conversation:
    is_prompt = sources.text != "document" and record.fields.keys() == {"text"}  # whatever format training data has
    name = "text" if is_prompt else sources.format or _format_of(record, layouts, counts)
    conversation = to_conversation(record, name)
    return conversation.as_question() if sources.text == "question" and conversation.is_text else conversation


def _format_of(record: Record, layouts: dict[str, str], counts: RecordCounts) -> str:
    """The format of a file, recognised from its first record that has one."""
    file = record.origin.rpartition(":")[0]
    if file not in layouts:
        layouts[file] = recognise_format(record)
        counts.formats.append(f"{file}: {layouts[file]} (recognised)")
    return layouts[file]


def _unanswered(record: Record) -> str:
    return (
        f"{record.origin}: there is no answer to learn (fields: {record.field_names}); expected the last turn to "
        "be the assistant's, and not blank. Complete the record, or set `--data.on_invalid drop`."
    )


def _encode_splits(sources: Sources, encoder: Encoder, folder: Path, processes: int) -> dict[str, Any]:
    """Write the examples of every split into a folder; returns their ledgers."""
    ledgers: dict[str, Any] = {}
    taken: set[str] = set()
    for split in sources.splits:
        # held-out records are scored whole, so that figures are over the same tokens whatever `samples` is
        samples = sources.samples if split == "train" else "conversation"
        with EncodingPool(ChunkEncoder(encoder, sources.on_invalid, samples), processes) as pool:
            read, encoded = Ledger(sources.on_invalid), Ledger(sources.on_invalid)
            conversations = without_duplicates(split, sources, read, taken)
            write_batches(folder / f"{split}.arrow", _encode_split(split, conversations, pool, encoded))
            # only now: reading runs ahead of encoding, and each lists what it rejected in order
            read.add(encoded)
            if (
                split in sources.files
                and encoded.num_invalid
                and not (read.examples or read.duplicates or read.dropped)
            ):
                raise ValueError(all_invalid(sources.files[split], read))
            assert read.is_balanced(), f"{split}: records are unaccounted for: {read}"
            ledgers[split] = read.to_dict()
    return ledgers


def _encode_split(
    split: str, conversations: Iterator[Conversation], pool: EncodingPool, ledger: Ledger
) -> Iterator[pa.RecordBatch]:
    with Progress(f"encoding {split}", "conversations") as progress:
        for chunk in pool.run(conversations):
            ledger.add(chunk.ledger)
            progress.update(chunk.num_conversations)
            yield chunk.examples


def without_duplicates(split: str, sources: Sources, counts: RecordCounts, taken: set[str]) -> Iterator[Conversation]:
    """Conversations of a split without those that an earlier split has, or that share a group with one of its."""
    own: set[str] = set()
    for conversation in read_conversations(split, sources, counts):
        keys = set(filter(None, (conversation.content_key(), conversation.group_key)))
        if not keys.isdisjoint(taken):
            counts.duplicates += 1
            continue
        own |= keys if split != "train" else set()
        yield conversation
    taken |= own
