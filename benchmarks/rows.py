"""The rows that all contestants train on, as an example store and as plain lists."""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer

from data_modules.batching.batch_settings import BatchSettings
from data_modules.batching.prefix_plans import Families, families, grouped
from data_modules.batching.sampling import WindowSampler
from data_modules.encoding.example import Example
from data_modules.encoding.example_store import ExampleStore, record_batch, write_batches
from data_modules.errors import UserError
from data_modules.records.splits import Samples
from data_modules.rendering.masking import MASKS
from data_modules.rendering.segments import SegmentKind
from data_modules.rendering.templates import TemplateName
from data_modules.sft_data_module import SFTDataModule

MASK = "output_only"


POOL = 50
"""Batches in the pool that is grouped by length; transformers' Trainer also sorts this many at once."""


def add_row_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose records and how they are rendered."""
    parser.add_argument("--records", default="examples/world/train.json", help="file of records")
    parser.add_argument("--template", help="how rows are rendered; default: chatml if the tokenizer has its tokens")


def draw_rows(
    records: str,
    tokenizer: str,
    count: int,
    most: int,
    folder: Path,
    *,
    max_length: int,
    template: TemplateName | None = None,
    samples: Samples = "conversation",
    together: int | None = None,
) -> ExampleStore:
    """Up to `most` records, rendered and shuffled.

    Args:
        records: File of records.
        tokenizer: Folder of the tokenizer.
        count: Rows that are needed at least.
        most: Rows that are wanted.
        folder: Folder for the rows.
        max_length: Maximum number of tokens in a row.
        template: How records are rendered. None: see `template_of`.
        samples: Whether every answer is a row.
        together: Move rows that share most of their tokens together, at most this many, as `--data.group_by_prefix`
            does with the rows of a step. None: leave them where they are.

    Raises:
        SystemExit: If there are fewer than `count`, or they cannot be read or rendered.
    """
    data = SFTDataModule(
        records, tokenizer=tokenizer, template=template or template_of(tokenizer), val_fraction=0.0,
        test_fraction=0.0, max_length=max_length, samples=samples,
    )  # fmt: skip
    try:
        data.setup("fit")
    except UserError as error:
        raise SystemExit(str(error)) from None
    store = data.stores["train"]
    if len(store) < count:
        raise SystemExit(f"{records}: {len(store)} rows; {count} are needed. Provide more rows, or lower --steps.")
    if truncated := data.ledgers["train"]["truncated"]:
        print(f"{records}: {truncated} of {len(store)} rows are cut to {max_length} tokens", file=sys.stderr)
    order = torch.randperm(len(store), generator=torch.Generator().manual_seed(0)).numpy()
    if together:
        order = grouped(order, families(len(store), store.ids, together), together)
    return _written((store[index] for index in order[: max(count, most)].tolist()), folder)


def template_of(tokenizer: str) -> TemplateName:
    """ChatML if the tokenizer has its tokens (GPT-2's does not), else plain."""
    return "chatml" if "<|im_end|>" in AutoTokenizer.from_pretrained(tokenizer).get_vocab() else "plain"


def sharing_sampler(store: ExampleStore, batch_size: int, token_budget: int, *, is_grouped: bool) -> WindowSampler:
    """Plans steps as training on one device does, where what rows have in common at their beginning is computed once.

    Args:
        store: The rows.
        batch_size: Rows per step.
        token_budget: Maximum number of computed tokens in a micro-batch.
        is_grouped: Whether rows that share at least half of their tokens follow one another.
    """
    settings = BatchSettings(
        batch_size=batch_size, eval_batch_size=None, packing=True, token_budget=token_budget, shuffle=True, seed=0,
        share_prefixes=True, group_by_prefix=is_grouped,
    )  # fmt: skip
    found = Families(len(store), store.ids)
    return settings.train_sampler(store.lengths.tolist(), lambda _: 1.0, None, ids_of=store.ids, families=found)


def make_rows(vocabulary: int, count: int, folder: Path, *, max_length: int) -> ExampleStore:
    """Rows of random tokens as long as instruction data: many short, few long, half of each supervised.

    The median is 90 tokens and the mean about 125, as in Alpaca.
    """
    draw, words = random.Random(0), np.random.default_rng(0)
    rows = []
    for index in range(count):
        length = min(max_length, max(16, round(math.exp(draw.gauss(math.log(90), 0.8)))))
        kinds = np.full(length, SegmentKind.USER, dtype=np.uint8)
        kinds[length // 2 :] = SegmentKind.FINAL_ANSWER
        ids = words.integers(vocabulary, size=length, dtype=np.int32)
        rows.append(Example(ids, kinds, np.zeros(length, dtype=np.int16), f"made:{index}"))
    return _written(rows, folder)


def write_plain(store: ExampleStore, path: Path) -> list[int]:
    """Write the rows as `input_ids` and `labels`; returns the number of supervised tokens in each."""
    rows = []
    for example in store:
        weights = example.loss_weights(MASKS[MASK])
        labels = np.where(weights > 0, example.input_ids, -100)
        labels[0] = -100  # nothing predicts the first token
        rows.append({"input_ids": example.input_ids.tolist(), "labels": labels.tolist()})
    path.write_text(json.dumps(rows), encoding="utf-8")
    return [sum(label != -100 for label in row["labels"]) for row in rows]


def _written(examples: Iterable[Example], folder: Path) -> ExampleStore:
    path = folder / "rows.arrow"
    write_batches(path, [record_batch(list(examples))])
    return ExampleStore(path)
