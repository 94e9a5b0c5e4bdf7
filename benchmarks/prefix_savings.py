#!/usr/bin/env python3
"""How much shared prefixes save: tokens in the rows, divided by tokens that are computed.

    python benchmarks/prefix_savings.py --tokenizer FOLDER rows.json:alpaca rows.json:auto chats.jsonl:chatml:answer

Each set is FILE[:TEMPLATE[:SAMPLES]]: a template of `--data.template` (auto if not given), and `conversation` (the
default) or `answer` for one sample per answer. The steps are those of training: shuffled, then cut into micro-batches
of at most `--token-budget` computed tokens; what the documents of a micro-batch share from 8 tokens is computed once.
`grouped` is `--data.group_by_prefix true`. The figures are over `--epochs` epochs, except in the last column: all rows
as one micro-batch, which no order of the rows can beat.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

if not __package__:  # run as a script
    sys.path[0] = str(Path(__file__).parents[1])

from benchmarks.rows import sharing_sampler
from data_modules.batching.prefix_tree import stretches_of
from data_modules.encoding.example_store import ExampleStore
from data_modules.errors import UserError
from data_modules.records.splits import Samples
from data_modules.rendering.templates import TemplateName
from data_modules.sft_data_module import SFTDataModule


@dataclass(frozen=True)
class DataSet:
    """A file of records, and how rows are made of it."""

    file: str
    template: TemplateName = "auto"
    samples: Samples = "conversation"

    @property
    def label(self) -> str:
        """Its name in the table."""
        return f"{Path(self.file).name}, {self.template}" + ", one sample per answer" * (self.samples == "answer")


def main() -> None:
    """Count and print a table."""
    options = arguments()
    sizes = options.batch_sizes
    kinds = [f"{kind} {size}" for kind in ("random", "grouped") for size in sizes]
    print("| data | rows | tokens a row |", " | ".join(kinds), "| whole set |")
    print("|---|" + "---:|" * (3 + len(kinds)))
    for data_set in options.sets:
        store = read_rows(data_set, options.tokenizer, options.max_length)
        found = [
            savings(store, size, is_grouped=is_grouped, budget=options.token_budget, epochs=options.epochs)
            for is_grouped in (False, True)
            for size in sizes
        ]
        found.append(int(store.lengths.sum()) / computed(store, range(len(store))))
        figures = " | ".join(f"{value:.2f} x" for value in found)
        print(f"| {data_set.label} | {len(store)} | {store.lengths.mean():.0f} | {figures} |", flush=True)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", type=read_set, metavar="FILE[:TEMPLATE[:SAMPLES]]")
    parser.add_argument("--tokenizer", default="examples/tokenizer", help="folder of a tokenizer")
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[8, 32, 128], help="rows per step")
    parser.add_argument("--token-budget", type=int, default=16384, help="most computed tokens in a micro-batch")
    parser.add_argument("--max-length", type=int, default=4096, help="maximum number of tokens in a row")
    parser.add_argument("--epochs", type=int, default=5, help="epochs to count, each in another order")
    return parser.parse_args()


def read_set(text: str) -> DataSet:
    """Read FILE[:TEMPLATE[:SAMPLES]].

    Raises:
        argparse.ArgumentTypeError: If a template or a kind of sample does not exist.
    """
    file, *rest = text.split(":")
    for value, choices in zip(rest, (get_args(TemplateName), get_args(Samples)), strict=False):
        if value not in choices:
            raise argparse.ArgumentTypeError(f"'{text}': found '{value}'; expected one of {', '.join(choices)}.")
    if len(rest) > 2:
        raise argparse.ArgumentTypeError(f"'{text}': expected at most FILE:TEMPLATE:SAMPLES.")
    return DataSet(file, *rest)  # type: ignore[arg-type]


def read_rows(data_set: DataSet, tokenizer: str, max_length: int) -> ExampleStore:
    """The encoded rows of a set; says so if some are cut, since a row then loses its beginning.

    Raises:
        SystemExit: If the records cannot be read or rendered.
    """
    data = SFTDataModule(
        data_set.file, tokenizer=tokenizer, template=data_set.template, samples=data_set.samples,
        max_length=max_length, val_fraction=0.0, test_fraction=0.0,
    )  # fmt: skip
    try:
        data.setup("fit")
    except UserError as error:
        sys.exit(str(error))
    if cut := data.ledgers["train"]["truncated"]:
        print(f"{data_set.label}: {cut} rows are cut to {max_length} tokens", file=sys.stderr)
    return data.stores["train"]


def savings(store: ExampleStore, batch_size: int, *, is_grouped: bool, budget: int, epochs: int) -> float:
    """Tokens in rows, divided by computed tokens, in the micro-batches of training on one device.

    Args:
        store: The rows.
        batch_size: Rows per step.
        is_grouped: Whether rows that share at least half of their tokens follow one another.
        budget: Maximum number of computed tokens in a micro-batch.
        epochs: Epochs to count.
    """
    sampler = sharing_sampler(store, batch_size, budget, is_grouped=is_grouped)
    total = 0
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        total += sum(computed(store, indices) for plan in sampler for indices in plan.micro_batches)
    return epochs * int(store.lengths.sum()) / total


def computed(store: ExampleStore, indices: tuple[int, ...] | range) -> int:
    """Tokens that are computed in a micro-batch of these rows."""
    return sum(map(len, stretches_of([store.ids(index) for index in indices])))


if __name__ == "__main__":
    main()
