"""Which items a model has seen: runs of words that stand in its training records too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from data_modules.encoded_data import Sources, read_conversations
from data_modules.ledger import Ledger
from lit_sft.evaluation.results import Results
from lit_sft.text_metrics import words_of


def find_seen(results: Results, files: list[str], size: int) -> dict[str, set[str]]:
    """By set of questions or requests, the items that stand in training records.

    Raises:
        ValueError: If the records cannot be read.
    """
    texts: dict[str, dict[str, str]] = {}
    for (_, name), result in results.results.items():
        if result.kind in ("choices", "harness", "answers"):
            for row in result.rows.values():
                parts = (row.details.get(part, "") for part in ("question", "right", "reference"))
                texts.setdefault(name, {})[row.item] = "\n".join(filter(None, parts))
    return {name: contaminated(items, files, size) for name, items in texts.items()}


def contaminated(items: Mapping[str, str], files: list[str], size: int) -> set[str]:
    """The items of which `size` words in a row, or all where they are fewer, stand in a training record.

    Words are in lower case, a Chinese character each. Training records are read once, one
    after the other.

    Args:
        items: Names to texts.
        files: Training records, as `fit` reads them.
        size: Words in a row.
    """
    owners: dict[tuple[str, ...], set[str]] = {}
    lengths: set[int] = set()
    for name, text in items.items():
        words = words_of(text)
        length = min(size, len(words))
        lengths.add(length)
        for run in _runs(words, length):
            owners.setdefault(run, set()).add(name)
    found: set[str] = set()
    sources = Sources({"train": files}, on_invalid="drop", require_answer=False)
    for conversation in read_conversations("train", sources, Ledger("drop")):
        words = words_of("\n".join(f"{turn.content} {turn.context}" for turn in conversation.turns))
        for length in lengths:
            for run in _runs(words, length):
                found |= owners.get(run, set())
    return found


def _runs(words: list[str], length: int) -> Iterable[tuple[str, ...]]:
    return (tuple(words[start : start + length]) for start in range(len(words) - length + 1)) if length else ()
