"""A comparison as tables, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Callable

from lit_sft.reporting.page import Cell, Finding, Table
from lit_sft.tokenization.arguments import size
from lit_sft.tokenization.compared import Compared
from lit_sft.tokenization.comparison import Comparison, entry_text, longest, num_unused, single_bytes
from lit_sft.tokenization.measures import Usage
from lit_sft.tokenization.unicode_blocks import ChangedBlock

_MOST_BLOCKS = 200


def overview(comparison: Comparison) -> Table:
    """The main figures, with one column per tokenizer."""
    measures = comparison.measures
    num_bytes, num_characters = int(measures.bytes.sum()), int(measures.characters.sum())
    first = measures.usages[0]

    def row(name: str, value: Callable[[Compared, Usage], Cell]) -> list[Cell]:
        return [name, *(value(each, usage) for each, usage in zip(comparison.tokenizers, measures.usages, strict=True))]

    rows = [
        row("entries", lambda each, _: f"{each.num_entries:,}"),
        row("tokens", lambda _, usage: f"{int(usage.counts.sum()):,}"),
        row("tokens, relative", lambda _, usage: f"{usage.counts.sum() / first.counts.sum():.3f}"),
        row("bytes per token", lambda _, usage: f"{num_bytes / usage.counts.sum():.3f}"),
        row("characters per token", lambda _, usage: f"{num_characters / usage.counts.sum():.3f}"),
        row("bytes encoded one by one", lambda each, usage: f"{single_bytes(each, usage) / num_bytes:.2%}"),
        row("unknown tokens", lambda each, usage: f"{_unknown(each, usage):,}"),
        row("entries not used here", lambda each, usage: _share(num_unused(each, usage), each.num_entries)),
        row("texts that change", lambda _, usage: _fault(usage.changed_texts, f"of {measures.texts:,}")),
        _blocks_row(comparison),
        row("tokens per CPU second", lambda _, usage: f"{usage.counts.sum() / usage.seconds:,.0f}"),
        row("speed, relative", lambda _, usage: f"{first.seconds / usage.seconds:.2f}"),
    ]  # fmt: skip
    notes = [
        "A text or block changes if decoding does not return exactly what was encoded. Speed is bytes of text per CPU "
        "second, all threads together; relative figures are relative to the first tokenizer.",
    ]
    return Table("Overview", ["", *_names(comparison)], rows, notes)


def _blocks_row(comparison: Comparison) -> list[Cell]:
    faults = (_fault(len(blocks), f"of {comparison.num_blocks}") for blocks in comparison.changed)
    return ["Unicode blocks that change", *faults]


def by_script(comparison: Comparison) -> Table:
    """Bytes per token and characters per token of every script."""
    measures = comparison.measures
    rows: list[list[Cell]] = []
    total = int(measures.bytes.sum())
    for code in comparison.scripts():
        num_bytes, num_characters = int(measures.bytes[code]), int(measures.characters[code])
        cells = []
        for usage in measures.usages:
            num = int(usage.tokens[code])
            cells.append(f"{num_bytes / num:.2f} ({num_characters / num:.2f})" if num else "-")
        rows.append([measures.scripts[code], f"{num_bytes / total:.2%}", *cells])
    notes = ["Digits, punctuation and spaces count with the letters before them."]
    header = ["script", "share of bytes", *_names(comparison)]
    return Table("Bytes per token (characters per token)", header, rows, notes)


def words(comparison: Comparison) -> Table:
    """The ids of every word."""
    rows: list[list[Cell]] = [
        [word, *(" ".join(map(str, encoded.ids)) for encoded in row)] for word, row in comparison.words.items()
    ]
    return Table("Words", ["word", *_names(comparison)], rows, is_text=True)


def changes(comparison: Comparison) -> Table:
    """The Unicode blocks, and the first text, that each tokenizer changes."""
    rows: list[list[Cell]] = []
    notes = [
        "Characters are encoded in strings of 32 consecutive ones, and one by one if the string changes; "
        "“combinations”: only the strings change."
    ]
    for tokenizer, blocks in zip(comparison.tokenizers, comparison.changed, strict=True):
        rows += [[tokenizer.name, *_block_cells(block)] for block in blocks[:_MOST_BLOCKS]]
    notes += [
        f"{tokenizer.name}: {len(blocks) - _MOST_BLOCKS:,} more blocks; --json lists them"
        for tokenizer, blocks in zip(comparison.tokenizers, comparison.changed, strict=True)
        if len(blocks) > _MOST_BLOCKS
    ]
    for tokenizer, usage in zip(comparison.tokenizers, comparison.measures.usages, strict=True):
        if usage.first_change:
            change = usage.first_change
            notes.append(f"{tokenizer.name}: {change.origin}: {change.text!r} comes back as {change.returned!r}")
    header = ["tokenizer", "block", "range", "characters", "first", "comes back as"]
    return Table("What changes", header, rows, notes, is_text=True)


def change_lines(comparison: Comparison) -> list[str]:
    """The Unicode blocks that change, in one line per tokenizer."""
    lines = []
    for tokenizer, blocks in zip(comparison.tokenizers, comparison.changed, strict=True):
        names = [f"{changed.block.name} ({_num_changed(changed)})" for changed in blocks]
        lines += [f"{tokenizer.name} changes {', '.join(names)}"] if names else []
    return lines


def longest_entries(comparison: Comparison) -> list[Table]:
    """The longest entries of each tokenizer."""
    tables = []
    for tokenizer, usage in zip(comparison.tokenizers, comparison.measures.usages, strict=True):
        rows: list[list[Cell]] = [
            [entry_text(tokenizer, index), str(index), f"{len(tokenizer.entries[index]):,}", f"{usage.counts[index]:,}"]
            for index in longest(tokenizer)
        ]
        header = ["entry", "id", "bytes", "times in the text"]
        tables.append(Table(f"Longest entries of {tokenizer.name}", header, rows, is_text=True))
    return tables


def summary(comparison: Comparison) -> str:
    """One line about the text."""
    corpus, used = comparison.corpus, size(comparison.corpus.used_bytes)
    sampled = f" (an even sample of {size(corpus.num_bytes)})" if corpus.used_bytes < corpus.num_bytes else ""
    return f"{used}{sampled} in {comparison.measures.texts:,} texts from {', '.join(corpus.files.files)}"


def _block_cells(changed: ChangedBlock) -> list[Cell]:
    block = changed.block
    where = f"U+{block.start:04X} to U+{block.stop - 1:04X}"
    return [block.name, where, _num_changed(changed), _codes(changed.first), _codes(changed.returned)]


def _num_changed(changed: ChangedBlock) -> str:
    total = changed.block.stop - changed.block.start
    return f"{changed.characters:,} of {total:,}" if changed.characters else "combinations"


def _codes(text: str) -> str:
    return (
        " ".join(f"U+{ord(character):04X}" for character in text[:4]) + (" ..." if len(text) > 4 else "") or "nothing"
    )


def _names(comparison: Comparison) -> list[str]:
    return [tokenizer.name for tokenizer in comparison.tokenizers]


def _unknown(tokenizer: Compared, usage: Usage) -> int:
    return 0 if tokenizer.unknown_id is None else int(usage.counts[tokenizer.unknown_id])


def _share(num: int, total: int) -> str:
    return f"{num:,} ({num / total:.1%})"


def _fault(num: int, of: str) -> Cell:
    return Finding(f"{num:,} {of}", -1) if num else f"0 {of}"
