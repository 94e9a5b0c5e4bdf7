"""What encoding took from the examples shown: each is compared with its record before shortening."""

from __future__ import annotations

from collections.abc import Iterator

from data_modules.encoding.encoder import Encoder
from data_modules.encoding.example import Example
from data_modules.encoding.ledger import Ledger
from data_modules.records.conversation import Conversation, expand_answers
from data_modules.records.counts import RecordCounts
from data_modules.records.splits import read_conversations
from data_modules.sft_data_module import SFTDataModule

_Key = tuple[str, bytes]
"""Origin and ids: a record may have several examples."""


def shortenings(data: SFTDataModule, split: str, examples: list[Example]) -> list[str]:
    """How each example was shortened, such as `truncated from 900 tokens`; empty if it was not.

    Reads the records again, up to the last of these examples, if any record of the split was shortened.

    Args:
        data: The data module, set up.
        split: The split of the examples.
        examples: Examples of this split.
    """
    ledger = data.ledgers[split]
    if not (ledger["truncated"] or ledger["split"]):
        return [""] * len(examples)
    missing = {example.origin for example in examples}
    found: dict[_Key, str] = {}
    for encoder, conversation in _conversations(data, split):
        if conversation.origin in missing:
            found |= _by_example(data, split, conversation, encoder)
            missing.discard(conversation.origin)
        if not missing:
            break
    return [found.get(_key(example), "") for example in examples]


def _conversations(data: SFTDataModule, split: str) -> Iterator[tuple[Encoder, Conversation]]:
    """The conversations of a split, each with the encoder of its source."""
    whole = [("", data.sources, data.encoder)]
    for _, sources, encoder in data.mixture.feeds(split) if data.mixture else whole:
        for conversation in read_conversations(split, sources, RecordCounts(sources.on_invalid)):
            yield encoder, conversation


def _by_example(data: SFTDataModule, split: str, conversation: Conversation, encoder: Encoder) -> dict[_Key, str]:
    is_expanded = split == "train" and data.sources.samples == "answer"
    found: dict[_Key, str] = {}
    for sample in expand_answers(conversation) if is_expanded else [conversation]:
        ledger = Ledger()
        parts = encoder.encode(sample, ledger)
        found |= {_key(part): _in_words(ledger, len(parts)) for part in parts}
    return found


def _in_words(ledger: Ledger, num_parts: int) -> str:
    """What the ledger of a single sample says about it."""
    length = max(length for lengths in ledger.whole_lengths.values() for length in lengths)
    if num_parts > 1:
        return f"one of {num_parts} parts of {length:,} tokens" + ", some truncated" * bool(ledger.truncated)
    return f"truncated from {length:,} tokens" if ledger.truncated else ""


def _key(example: Example) -> _Key:
    return example.origin, example.input_ids.tobytes()
