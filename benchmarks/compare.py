#!/usr/bin/env python3
"""Compare lit_sft with its peers on this machine: same weights, rows, order and optimiser, in alternating steps.

    python benchmarks/compare.py
    python benchmarks/compare.py --records rows.json --pretrained FOLDER --tuning lora --precision bf16
    python benchmarks/compare.py --records rows.json --pretrained FOLDER --rows few_shot

The rows are those of a file (`--records`), or with `--rows`:
- `few_shot`: an instruction, five solved examples from the file, and one of its questions with a short answer
- `per_answer`: one row for each answer of the file's conversations
- `tools`: made conversations with a system prompt and six functions, one row for each call and each answer; not from
  the file
For the last two, rows that share at least half of their tokens are moved together, as by `--data.group_by_prefix true`,
for all contestants; those with batches of similar length then sort them.

Contestants, each in a separate process; this command creates the environments of the peers:
- `lit_sft`: Lightning's Trainer, LitCausalLM and SFTDataModule; packed rows, in which what documents have in common at
  their beginning is computed once
- `lit_sft_unshared`: the same with `--data.share_prefixes false`
- `lit_sft_padded`, only if named: the same with `--data.packing false`
- `hf_default`, `trl_default`: transformers' Trainer and TRL's SFTTrainer with only model, rows, batch size and learning
  rate set. They ignore --precision: Trainer uses float32, TRL bf16 autocast (float32 on a CPU on which bf16 is slower).
  TRL uses activation checkpointing
- `hf_grouped`, `trl_grouped`: tuned, with batches of rows of similar length, from a pool of 50 batches
- `hf_flat`, `trl_flat`: tuned, with packed rows and a mask that separates them. Whether these or the grouped ones are
  faster depends on the rows. For the other settings see `tuned` in `peers/run_hf_trainer.py` and `peers/run_trl.py`

All contestants use AdamW at a constant 1e-5 without weight decay or clipping, no dropout, and LoRA of rank 16 and
alpha 32 on all linear layers. Before anything is timed, the losses of the first batch must agree, to a relative 1e-5 in
float32 or 2e-2 in bf16. The contestants then take turns, one step each, so that drifting machine speed affects all of
them equally. Each turn is a separate process with the memory to itself: one warm-up step, then one timed step. A step
is timed from the end of the previous one, so it includes building the batch.

The report shows: real tokens (without padding) per second over all rounds; the speed-up of lit_sft, with the median,
lowest and highest ratio of a single round (grouped contestants train on different rows); the tokens computed for each
real one: more than one with padding, less if beginnings are shared; peak resident memory; and the share of the ceiling,
which is the floating-point operations per second that the rows need one by one (`ModelFlops` in `shapes.py`) divided by
the rate of a matrix product, timed in this process before and after. Sharing can exceed it, because it does less.
Writes `compare.json`, `compare.md` and `compare.png`.
"""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any, get_args

if not __package__:  # run as a script
    sys.path[0] = str(Path(__file__).parents[1])

import torch

from benchmarks.peers.protocol import Settings
from benchmarks.report import write_report
from benchmarks.rows import POOL, draw_rows, write_plain
from benchmarks.runner import CONTESTANTS, Contestant, Entry, Process, compete, python_of
from benchmarks.shapes import (
    CACHE,
    add_model_options,
    bf16_is_slow,
    chosen_model,
    matrix_product_flops,
    work_of_folder,
)
from benchmarks.shared_rows import RowKind, row_source
from data_modules.rendering.templates import TemplateName
from lit_sft.models.flops import ModelFlops


def main() -> None:
    """Compare and report."""
    options = arguments()
    torch.set_num_threads(options.threads)
    slow_bf16 = bf16_is_slow()
    if slow_bf16 and options.precision == "bf16":
        sys.exit("--precision bf16: this CPU is not fast at bf16; use float32, or a CPU with avx512_bf16 or AMX.")
    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    model, options.tokenizer = chosen_model(options)
    result = measure(options, settings(options, model, output) | {"slow_bf16": slow_bf16}, output)
    print(write_report(result, output))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [contestant.name for contestant in CONTESTANTS]
    usual = [name for name in names if name != "lit_sft_padded"]
    parser.add_argument("--records", default="examples/world/train.json", help="file of records")
    parser.add_argument("--rows", choices=get_args(RowKind), default="records", help="what a row is; see above")
    templates = get_args(TemplateName)
    parser.add_argument(
        "--template", choices=templates, help="default: chatml if the tokenizer has its tokens, or plain"
    )
    add_model_options(parser)
    parser.add_argument("--tuning", choices=("full", "lora"), default="full")
    parser.add_argument("--precision", choices=("bf16", "float32"), default="float32")
    parser.add_argument("--batch-size", type=int, default=8, help="rows per step")
    parser.add_argument("--steps", type=int, default=5, help="timed steps per contestant, after one warm-up step")
    most = "maximum number of tokens in a row; default: 512, or 2048 if --rows is given"
    parser.add_argument("--max-length", type=int, help=most)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--contestants", nargs="+", choices=names, default=usual, metavar="NAME", help=", ".join(names))
    parser.add_argument("--output", default="runs/benchmark", help="folder for the report")
    parser.add_argument(
        "--side-by-side",
        action="store_true",
        help="keep all processes alive between turns: faster, if memory suffices for all at once",
    )
    parser.add_argument("--same-environment", action="store_true", help="run peers in this environment")
    options = parser.parse_args()
    # a shorter row loses its beginning, which is what rows share
    options.max_length = options.max_length or (512 if options.rows == "records" else 2048)
    return options


def measure(options: argparse.Namespace, base: dict[str, Any], output: Path) -> dict[str, Any]:
    """All metrics of the comparison, as written to `compare.json`."""
    size, model = options.batch_size, base["model"]
    count, most = size * (1 + options.steps), size * POOL
    source = row_source(options.rows, options.records, max(count, most), output)
    store = draw_rows(
        source.records, options.tokenizer, count, most, output, max_length=options.max_length,
        template=options.template, samples=source.samples, together=size if source.is_grouped else None,
    )  # fmt: skip
    supervised, lengths = write_plain(store, output / "rows.json"), store.lengths.tolist()
    chosen = [c for c in CONTESTANTS if c.name in {"lit_sft", *options.contestants}]
    starter = partial(start, base=base, output=output, same_environment=options.same_environment)
    entries = [
        Entry(c, starter, c.ordered(lengths, size, options.steps), size, stays=options.side_by_side) for c in chosen
    ]
    ceilings = [matrix_product_flops(options.precision)]
    results = compete(entries)
    ceilings.append(matrix_product_flops(options.precision))
    add_needed_flops(results, work_of_folder(model), lengths, supervised, options.tuning)
    return {
        "settings": vars(options) | {"model": model},
        "ceiling_flops": ceilings,
        "contestants": results,
    }


def add_needed_flops(
    results: dict[str, dict[str, Any]], work: ModelFlops, lengths: list[int], supervised: list[int], tuning: str
) -> None:
    """Add the operations that its rows need to every contestant's result."""
    for result in results.values():
        rows = result["rows"]
        tokens = sum(supervised[row] for row in rows)
        result["needed_flops"] = work.flops([lengths[row] for row in rows], tokens, tuning)


def settings(options: argparse.Namespace, model: str, output: Path) -> dict[str, Any]:
    """The settings that all contestants share."""
    return {
        "model": model, "tokenizer": options.tokenizer, "rows": str(output / "rows.json"),
        "store": str(output / "rows.arrow"), "tuning": options.tuning, "precision": options.precision,
        "batch_size": options.batch_size, "lr": 1e-5, "threads": options.threads, "device": "cpu",
    }  # fmt: skip


def start(
    contestant: Contestant, order: list[int], *, base: dict[str, Any], output: Path, same_environment: bool = False
) -> Process:
    """Start a contestant with its rows."""
    folder = output / contestant.name
    own = Settings(**base, order=order, variant=contestant.variant, output=str(folder))
    python = python_of(None if same_environment else contestant.environment, CACHE)
    return Process(contestant, own, python, folder)


if __name__ == "__main__":
    main()
