"""Contamination: which items share runs of words with a model's training records."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from data_modules.encoding.ledger import Ledger
from data_modules.progress import with_progress
from data_modules.records.conversation import Conversation
from data_modules.records.splits import Sources, read_conversations, read_splits
from lit_sft.evaluation.item_results import Results
from lit_sft.evaluation.scores import Skipped, read_items
from lit_sft.evaluation.suite import ConversationSet, Suite, TextSet
from lit_sft.evaluation.training_data import TrainingData
from lit_sft.metrics.overlap import RunIndex
from lit_sft.printable import printable

Items = dict[str, set[str]]
"""Item names by set."""

_Name = TypeVar("_Name", bound=Hashable)

_OF_DOCUMENTS = 4
"""Documents must share runs of words this many times as long: long texts share short runs by chance."""


@dataclass(frozen=True)
class Exposure:
    """Which items appear in a model's training data.

    Attributes:
        data: Its training data.
        trained: Items found in its training records.
        chosen: Items found in its validation records, by which its best checkpoint was chosen.
    """

    data: TrainingData
    trained: Items
    chosen: Items


def find_exposure(suite: Suite, results: Results, model: str, data: TrainingData) -> Exposure:
    """Find the items that appear in a run's training or validation records; its own test records do not count.

    Raises:
        UserError: If the records cannot be read.
        OSError: Likewise.
    """
    found: dict[str, Items] = {"train": {}, "val": {}}
    if data.sources is None:
        return Exposure(data, {}, {})
    index = RunIndex(texts_of(suite, results))
    records = read_splits(data.sources)
    for split, conversation in with_progress(records, printable(f"training data of {model}"), "records"):
        for name, item in index.find(_text_of(conversation)) if split in found else ():
            found[split].setdefault(name, set()).add(item)
    return Exposure(data, found["train"], found["val"])


def find_seen(suite: Suite, results: Results, files: list[str]) -> Items:
    """Find the items that appear in training files.

    Raises:
        UserError: If the records cannot be read.
        OSError: Likewise.
    """
    seen: Items = {}
    for name, item in _seen(RunIndex(texts_of(suite, results)), files):
        seen.setdefault(name, set()).add(item)
    return seen


def contaminated(items: Mapping[str, str], files: list[str], size: int) -> set[str]:
    """Find the items with `size` consecutive words, or all their words if fewer, in a training record.

    Words are lower-cased; every Chinese character is a word. Training records are read once, one at a time.

    Args:
        items: Names to texts.
        files: Training records, as `fit` reads them.
        size: Consecutive words.
    """
    return _seen(RunIndex({name: (text, size) for name, text in items.items()}), files)


def in_words(results: Results, exposures: Mapping[str, Exposure]) -> list[str]:
    """Which items appear in training data: one sentence per group of models with the same findings."""
    models: dict[tuple[str, str], list[str]] = {}
    for model, exposure in exposures.items():
        models.setdefault((_counts(results, exposure.trained), _counts(results, exposure.chosen)), []).append(model)
    lines = []
    for (trained, chosen), names in models.items():
        named = " and ".join(f"“{name}”" for name in names)
        if trained:
            lines.append(f"The training records of {named} contain {trained}.")
        if chosen:
            lines.append(f"The validation records of {named}, used to choose the best checkpoint, contain {chosen}.")
    return lines


def _counts(results: Results, items: Items) -> str:
    """How many items of each set are in a selection."""
    parts = []
    for name in results.sets:
        total = len({item for (_, other), r in results.results.items() if other == name for item in r.rows})
        if count := len(items.get(name, ())):
            parts.append(f"{count:,} of {total:,} items of “{name}”")
    return ", ".join(parts)


def texts_of(suite: Suite, results: Results) -> dict[tuple[str, str], tuple[str, int]]:
    """By set and item: the text to search for, and how many consecutive words must match."""
    texts: dict[tuple[str, str], tuple[str, int]] = {}
    for kind, name, settings in suite.sets():
        rows = {item: row for (_, other), r in results.results.items() if other == name for item, row in r.rows.items()}
        # a set without rows may have failed because its data is unreadable
        if rows and isinstance(settings, (TextSet, ConversationSet)):
            size = suite.overlap * (_OF_DOCUMENTS if kind == "text" else 1)
            read = _read_again(settings)
            texts |= {(name, item): (read[item], size) for item in rows if item in read}
            continue
        for item, row in rows.items():
            parts = (str(row.details.get(part) or "") for part in ("question", "right", "reference"))
            texts[name, item] = "\n".join(filter(None, parts)), suite.overlap
    return texts


def _read_again(settings: TextSet | ConversationSet) -> dict[str, str]:
    """The texts of a set's items, which are not stored with its scores."""
    form, columns = ("text", None) if isinstance(settings, TextSet) else (settings.format, settings.columns)
    found = read_items(settings.data, settings.rows, Skipped(), form, columns)
    return {conversation.origin: _text_of(conversation) for conversation in found}


def _seen(index: RunIndex[_Name], files: list[str]) -> set[_Name]:
    sources = Sources({"train": files}, on_invalid="drop", require_answer=False)
    records = read_conversations("train", sources, Ledger("drop"))
    return {name for conversation in records for name in index.find(_text_of(conversation))}


def _text_of(conversation: Conversation) -> str:
    return "\n".join(" ".join(filter(None, turn.texts)) for turn in conversation.turns)
