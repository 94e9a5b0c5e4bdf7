"""Compares tokenizers on the same text, on words, and on every Unicode block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from typing import Any

import numpy as np

from data_modules.records.counts import OnInvalid
from data_modules.records.text_lines import TxtDocuments
from lit_sft.reporting.token_view import visible
from lit_sft.scripts import ScriptTable
from lit_sft.tokenization.compared import Compared, open_compared
from lit_sft.tokenization.measures import Counts, Measures, Usage, measure
from lit_sft.tokenization.sampling import Corpus, count_corpus
from lit_sft.tokenization.texts import TextFiles
from lit_sft.tokenization.unicode_blocks import Block, ChangedBlock, all_blocks, changed_blocks

DEFAULT_BYTES = 20 * 10**6
"""Default size of the text that tokenizers are compared on, in bytes."""

_LONGEST = 10
_EXCERPTS, _EXCERPT = 3, 100
_LOOKED_AT = 2000
"""How many texts are searched for excerpts."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A short text as one tokenizer encodes it.

    Attributes:
        ids: Its ids.
        tokens: The text of each, with spaces and parts of characters made visible.
    """

    ids: list[int]
    tokens: list[str]


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison. Lists have one element per tokenizer, in order.

    Attributes:
        tokenizers: The tokenizers.
        corpus: The text.
        measures: What the tokenizers did with it.
        changed: Unicode blocks that do not come back exactly.
        num_blocks: Number of blocks that were tried.
        num_characters: Characters in these blocks.
        words: Words as each encodes them.
        excerpts: The same for beginnings of texts in the most frequent scripts.
    """

    tokenizers: list[Compared]
    corpus: Corpus
    measures: Measures
    changed: list[list[ChangedBlock]]
    num_blocks: int
    num_characters: int
    words: dict[str, list[Encoded]]
    excerpts: dict[str, list[Encoded]]

    def scripts(self) -> list[int]:
        """Codes of the scripts in the text, the most frequent first."""
        return _by_bytes(self.measures)


def compare_tokenizers(
    names: Sequence[str],
    files: str | Sequence[str],
    *,
    words: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    format: str | None = None,
    on_invalid: OnInvalid = "error",
    txt_documents: TxtDocuments = "line",
    max_bytes: int | None = DEFAULT_BYTES,
) -> Comparison:
    """Compare tokenizers.

    Args:
        names: Folders, hub names or runs; `NAME=SOURCE` gives one another name.
        files: Text to compare them on: files, folders or hub names; any records that `fit` reads.
        words: Words to show token by token.
        columns: The column that each field is read from, such as {"text": "content"}.
        format: Format of the records. None: detected.
        on_invalid: Whether an invalid record is an error or is skipped.
        txt_documents: What a document is in a .txt file: a line, a paragraph, or the file.
        max_bytes: Compare on an even sample of this size. None: on everything.

    Raises:
        UserError: If a tokenizer cannot be loaded, or the text cannot be read.
    """
    sources = (files,) if isinstance(files, str) else tuple(files)
    texts = TextFiles(sources, columns or {}, format, on_invalid, txt_documents)
    tokenizers = open_compared(names)
    corpus = count_corpus(texts)
    if max_bytes is not None and max_bytes < corpus.num_bytes:
        corpus = corpus.limited(max_bytes)
    measures = measure(corpus.texts(), tokenizers, corpus.used_bytes)
    blocks = all_blocks()
    changed = [changed_blocks(tokenizer, blocks) for tokenizer in tokenizers]
    return Comparison(
        tokenizers,
        corpus,
        measures,
        changed,
        len(blocks),
        sum(block.stop - block.start for block in blocks),
        {word: _encoded(tokenizers, word) for word in words},
        {text: _encoded(tokenizers, text) for text in _excerpts(corpus, measures)},
    )


def longest(tokenizer: Compared) -> list[int]:
    """The ids with the most bytes, without special tokens."""
    ids = [index for index in range(len(tokenizer.entries)) if index not in tokenizer.special]
    return sorted(ids, key=lambda index: (-len(tokenizer.entries[index]), index))[:_LONGEST]


def num_unused(tokenizer: Compared, usage: Usage) -> int:
    """How many entries the text does not use, without special tokens."""
    used = set(np.flatnonzero(usage.counts).tolist())
    ids = (index for index, entry in enumerate(tokenizer.entries) if entry)
    return sum(index not in used and index not in tokenizer.special for index in ids)


def single_bytes(tokenizer: Compared, usage: Usage) -> int:
    """Bytes of the text that are tokens by themselves and only part of a character, as no entry contains it."""
    return int(usage.counts[tokenizer.is_single_byte].sum())


def entry_text(tokenizer: Compared, index: int) -> str:
    """An entry as readable text."""
    shown = visible(tokenizer.entries[index].decode("utf-8", "surrogateescape"))
    return shown.replace("↵\n", "↵") or "∅"


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Everything as plain JSON values."""
    corpus, measures = comparison.corpus, comparison.measures
    return {
        "data": {
            "files": list(corpus.files.files),
            "bytes": corpus.num_bytes,
            "used_bytes": corpus.used_bytes,
            "texts": measures.texts,
            "scripts": {
                measures.scripts[code]: {
                    "bytes": int(measures.bytes[code]),
                    "characters": int(measures.characters[code]),
                }
                for code in comparison.scripts()
            },
        },
        "unicode": {"blocks": comparison.num_blocks, "characters": comparison.num_characters},
        "tokenizers": [_tokenizer_json(comparison, number) for number in range(len(comparison.tokenizers))],
        "words": {
            word: {
                tokenizer.name: {"ids": encoded.ids, "tokens": encoded.tokens}
                for tokenizer, encoded in zip(comparison.tokenizers, row, strict=True)
            }
            for word, row in comparison.words.items()
        },
        "versions": {name: version(name) for name in ("tokenizers", "transformers", "fonttools")},
    }


def _tokenizer_json(comparison: Comparison, number: int) -> dict[str, Any]:
    tokenizer, usage = comparison.tokenizers[number], comparison.measures.usages[number]
    measures, first = comparison.measures, comparison.measures.usages[0]
    num_tokens, num_bytes = int(usage.counts.sum()), int(measures.bytes.sum())
    return {
        "name": tokenizer.name,
        "source": tokenizer.source,
        "entries": tokenizer.num_entries,
        "special_tokens": len(tokenizer.special),
        "tokens": num_tokens,
        "bytes_per_token": num_bytes / num_tokens,
        "characters_per_token": int(measures.characters.sum()) / num_tokens,
        "scripts": {
            measures.scripts[code]: _rates(measures, usage.tokens, code) for code in comparison.scripts()
        },
        "changed_texts": usage.changed_texts,
        "first_change": None if usage.first_change is None else _as_dict(usage.first_change),
        "changed_blocks": [_block_json(block) for block in comparison.changed[number]],
        "single_bytes": single_bytes(tokenizer, usage),
        "unknown_tokens": 0 if tokenizer.unknown_id is None else int(usage.counts[tokenizer.unknown_id]),
        "unused_entries": num_unused(tokenizer, usage),
        "longest": [
            {"id": index, "text": entry_text(tokenizer, index), "bytes": len(tokenizer.entries[index]),
             "count": int(usage.counts[index])}
            for index in longest(tokenizer)
        ],
        "cpu_seconds": usage.seconds,
        "tokens_per_cpu_second": num_tokens / usage.seconds if usage.seconds else None,
        "speed_ratio": first.seconds / usage.seconds if usage.seconds else None,
    }  # fmt: skip


def _rates(measures: Measures, tokens: Counts, code: int) -> dict[str, Any]:
    num = int(tokens[code])
    return {
        "tokens": num,
        "bytes_per_token": int(measures.bytes[code]) / num if num else None,
        "characters_per_token": int(measures.characters[code]) / num if num else None,
    }


def _as_dict(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}


def _block_json(changed: ChangedBlock) -> dict[str, Any]:
    block: Block = changed.block
    return {
        "block": block.name,
        "range": f"U+{block.start:04X}-U+{block.stop - 1:04X}",
        **{name: getattr(changed, name) for name in ("characters", "strings", "first", "returned")},
    }


def _by_bytes(measures: Measures) -> list[int]:
    """Codes of the scripts that occur, the most frequent first."""
    order = np.argsort(-measures.bytes, kind="stable").tolist()
    return [code for code in order if measures.bytes[code]]


def _encoded(tokenizers: Sequence[Compared], text: str) -> list[Encoded]:
    rows = []
    for tokenizer in tokenizers:
        [encoding] = tokenizer.encode([text])
        rows.append(Encoded(list(encoding.ids), [entry_text(tokenizer, index) for index in encoding.ids]))
    return rows


def _excerpts(corpus: Corpus, measures: Measures) -> Iterator[str]:
    """The beginning of a text in each of the most frequent scripts."""
    wanted = [measures.scripts[code] for code in _by_bytes(measures)[:_EXCERPTS]]
    table = ScriptTable()
    for text in islice(corpus.texts(), _LOOKED_AT):
        start = text.text[:_EXCERPT]
        codes = table.codes(start)
        name = table.names[int(np.bincount(codes).argmax())]
        if name in wanted and len(start) == _EXCERPT:
            wanted.remove(name)
            yield start
        if not wanted:
            return
