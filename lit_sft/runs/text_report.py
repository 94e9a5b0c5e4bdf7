"""Prints what happened to the documents of a text run before training: what was read, the blocks, and what is lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from data_modules.cleaning.cleaner import EMPTY
from data_modules.cleaning.ledger import CleaningLedger
from data_modules.text_data_module import TextDataModule
from lit_sft.console import cell
from lit_sft.printable import printable
from lit_sft.reporting.cleaning_table import print_cleaning
from lit_sft.runs.data_report import print_unread
from lit_sft.runs.shared_remarks import budget_remarks, held_out_remarks

_COUNTS = (
    "documents", "documents_cut", "documents_dropped", "sentences_cut", "tokens", "kept", "cropped", "blocks", "padding"
)  # fmt: skip


def print_text_ledger(console: Console, data: TextDataModule) -> None:
    """Print what happened to the documents, and what the training blocks lose.

    Args:
        console: Where to print.
        data: The data module, after `setup`.
    """
    console.print(_documents(data))
    for split, ledger in data.ledgers.items():
        if set(ledger["cleaning"]["rules"]) - {EMPTY}:  # which every ledger has
            cleaning = CleaningLedger.from_dict(ledger["cleaning"])
            print_cleaning(console, cleaning, f"cleaning {split}", examples=False)
    if "blocks" in data.ledgers.get("train", {}):
        console.print(_blocks(data))
    for split, ledger in data.ledgers.items():
        print_unread(console, split, ledger)
    for line in text_remarks(data):
        console.print(printable(line), style="yellow", markup=False, highlight=False, soft_wrap=True)


def text_remarks(data: TextDataModule) -> list[str]:
    """What the tokenizer and the blocks lose, and what a run goes without, one sentence per line."""
    remarks = []
    for split, ledger in data.ledgers.items():
        if unknown := ledger["unknown_text"]["count"]:
            remarks.append(
                f"warning: {split}: {unknown:,} of {ledger['documents']:,} documents contain text that the tokenizer "
                f"cannot represent, so the model never sees it (first: {ledger['unknown_text']['first'][0]})."
            )
    return [*remarks, *_block_remarks(data), *held_out_remarks(data), *budget_remarks(data)]


def _block_remarks(data: TextDataModule) -> list[str]:
    blocks = data.ledgers.get("train", {}).get("blocks")
    if not blocks or not blocks["cropped"]:
        return []
    lost = f"train: {blocks['cropped'] / blocks['tokens']:.1%} of the tokens are in no block"
    size, dropped = f"--data.block_size {data.block_size}", blocks["documents_dropped"]
    if data.keep_rest:
        return [f"{lost}: sentences longer than {size}. A larger block keeps more of them."]
    without = f"; {dropped:,} of them have no sentence that fits" if dropped else ""
    return [
        f"{lost}: the rest of {blocks['documents_cut']:,} documents longer than {size}{without}. "
        "`--data.keep_rest true` puts the rest in further blocks."
    ]


def _documents(data: TextDataModule) -> Table:
    """A row for each split: records read, documents and tokens."""
    table = Table(title="data: plain text", title_justify="left")
    splits = list(data.ledgers)
    table.add_column("")
    for split in splits:
        table.add_column(split, justify="right")
    for name, values in _document_rows(data).items():
        if any(value is not None for value in values):
            table.add_row(cell(name), *("" if value is None else f"{value:,}" for value in values))
    return table


def _document_rows(data: TextDataModule) -> dict[str, list[int | None]]:
    ledgers = data.ledgers
    rows: dict[str, list[int | None]] = {
        _NAMES.get(name, name.replace("_", " ")): [_count(ledger, name) for ledger in ledgers.values()]
        for name in ("records_read", "invalid", "dropped", "duplicates", "left_out", "documents")
    }
    rows["tokens"] = [sum(ledger["tokens"].values()) for ledger in ledgers.values()]
    rows["bytes"] = [ledger["bytes"] for ledger in ledgers.values()]
    rows[f"windows of {data.eval_window} tokens"] = [
        ledger["windows"]["count"] if "windows" in ledger else None for ledger in ledgers.values()
    ]
    return rows


def _count(ledger: Mapping[str, Any], name: str) -> int | None:
    """A count of a ledger; some are mappings with a count."""
    value = ledger.get(name)
    value = value.get("count") if isinstance(value, Mapping) else value
    return value if isinstance(value, int) else None


def _blocks(data: TextDataModule) -> Table:
    """A column for each source and one for all: their blocks, and what these lose."""
    rest = ", rest kept" if data.keep_rest else ""
    title = f"blocks: {data.blocks}{rest}, {data.block_size} tokens, documents {_ATTENTION[data.document_attention]}"
    table = Table(title=title, title_justify="left")
    ledger = data.ledgers["train"]
    sources = {name: ledger["sources"][name] for name in sorted(each.name for each in data.mix)}
    columns = [*(each["blocks"] for each in sources.values()), ledger["blocks"]]
    table.add_column("")
    for name in (*sources, "all" if sources else "train"):
        table.add_column(cell(name), justify="right")
    for name in _COUNTS:
        table.add_row(name.replace("_", " "), *(_with_share(name, column) for column in columns))
    if sources:
        epochs = [each["epoch"] for each in sources.values()]
        table.add_row("repeats", *(f"{epoch['repeats']:g}" for epoch in epochs), "")
        table.add_row(
            "blocks per epoch", *(f"{epoch['blocks']:,}" for epoch in epochs), f"{len(data.training_blocks):,}"
        )
    return table


def _with_share(name: str, blocks: Mapping[str, int]) -> str:
    """A count, with its share of the tokens or documents."""
    whole = "tokens" if name in ("kept", "cropped") else "documents" if name.startswith("documents_") else ""
    share = f" ({blocks[name] / blocks[whole]:.1%})" if whole and blocks[whole] else ""
    return f"{blocks[name]:,}{share}"


_NAMES = {"dropped": "dropped by cleaning"}

_ATTENTION = {"isolated": "isolated", "across": "seen as one sequence"}
