#!/usr/bin/env python3
"""Measure lit_sft, and TRL if installed, on a CUDA GPU: full-size models with random weights, bf16, large batches.

    python benchmarks/cuda.py
    python benchmarks/cuda.py --shapes tiny --tokens 512 --steps 2 --device cpu --precision float32

Rows of random tokens have the lengths of instruction data, half of each row supervised; a step has about `--tokens`
real tokens. All contestants run in this environment, train on the same rows one after the other, and must agree on the
loss of the first batch. Reported for each: real tokens per second, the share of the GPU's peak (the operations that the
rows need, `Work.flops` in `shapes.py`, divided by `--peak-tflops` or by the rate of a matrix product timed here), and
the peak memory allocated by torch. TRL is tuned: no activation checkpointing, rows grouped by length, Liger's kernels
if installed, and rows without padding if flash attention is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

if not __package__:  # run as a script
    sys.path[0] = str(Path(__file__).parents[1])  # not this folder, whose cuda.py could shadow a library's

import torch

from benchmarks.compare import add_needed_flops, start
from benchmarks.report import ratios, summary
from benchmarks.rows import POOL, make_rows, write_plain
from benchmarks.runner import CONTESTANTS, Entry, check_agreement
from benchmarks.shapes import CACHE, SHAPES, bf16_is_slow, matrix_product_flops, work_of_folder, write_shape

MEAN_LENGTH = 124
"""Average tokens in a row from `make_rows`."""


def main() -> None:
    """Measure every shape and tuning, and print a table."""
    options = arguments()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit(
            "no CUDA GPU here; to try the code, use `--device cpu --shapes tiny --tokens 512 --precision float32`."
        )
    output = Path(options.output)
    ceilings = [matrix_product_flops(options.precision, options.device)]
    runs = [
        measure(options, shape, tuning, output / f"{shape}-{tuning}")
        for shape in options.shapes
        for tuning in options.tunings
    ]
    ceilings.append(matrix_product_flops(options.precision, options.device))
    device = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
    result = {"settings": vars(options), "device": device, "ceiling_flops": ceilings, "runs": runs}
    (output / "cuda.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    text = table(result)
    (output / "cuda.md").write_text(text, encoding="utf-8")
    print(text)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=tuple(SHAPES), default=["qwen2.5-0.5b", "gpt2"])
    parser.add_argument("--layers", type=int, help="number of layers; default: all of the shape's")
    parser.add_argument("--tokenizer", default="examples/tokenizer")
    parser.add_argument("--tunings", nargs="+", choices=("full", "lora"), default=["full", "lora"])
    parser.add_argument("--precision", choices=("bf16", "float32"), default="bf16")
    parser.add_argument("--tokens", type=int, default=16384, help="approximate real tokens per step")
    parser.add_argument("--steps", type=int, default=10, help="timed steps, after one warm-up step")
    parser.add_argument("--max-length", type=int, default=1024, help="maximum number of tokens in a row")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--peak-tflops", type=float, help="peak of the GPU; default: the rate of a matrix product")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", default="runs/benchmark-cuda", help="folder for the report")
    return parser.parse_args()


def measure(options: argparse.Namespace, shape: str, tuning: str, output: Path) -> dict[str, Any]:
    """All contestants on one model."""
    output.mkdir(parents=True, exist_ok=True)
    model = str(write_shape(shape, options.layers, CACHE, options.tokenizer))
    size = max(1, options.tokens // MEAN_LENGTH)
    count = size * max(POOL, 1 + options.steps)
    store = make_rows(SHAPES[shape]["vocab_size"], count, output, max_length=options.max_length)
    supervised, lengths = write_plain(store, output / "rows.json"), store.lengths.tolist()
    base = {
        "model": model, "tokenizer": options.tokenizer, "rows": str(output / "rows.json"), "lr": 1e-5,
        "store": str(output / "rows.arrow"), "tuning": tuning, "precision": options.precision, "batch_size": size,
        "threads": options.threads, "device": options.device,
        "slow_bf16": options.device == "cpu" and bf16_is_slow(),
    }  # fmt: skip
    has_trl = importlib.util.find_spec("trl") is not None
    has_flash = importlib.util.find_spec("flash_attn") is not None
    tuned = "trl_flat" if has_flash else "trl_grouped"  # the dense mask of a long row is slower than padding
    peers = ("trl_default", tuned) if has_trl else ()
    chosen = [c for c in CONTESTANTS if c.name in ("lit_sft", *peers)]
    starter = partial(start, base=base, output=output, same_environment=True)
    entries = [Entry(c, starter, c.ordered(lengths, size, options.steps), size, stays=True) for c in chosen]
    first: dict[str, dict[str, Any]] = {}
    for entry in entries:  # one after the other: a GPU's speed does not drift, and its memory only fits one
        print(f"{shape}, {tuning}: {entry.contestant.label}", file=sys.stderr)
        try:
            if step := entry.attempt(entry.warm_up, 0):
                first[entry.contestant.name] = step
                check_agreement(entries, first)
            taken = [entry.attempt(entry.take_turn, index) for index in range(options.steps)]
            entry.rounds.extend(step for step in taken if step)
        finally:
            entry.end()
    results = {entry.contestant.name: entry.result() for entry in entries}
    add_needed_flops(results, work_of_folder(model), lengths, supervised, tuning)
    return {"shape": shape, "tuning": tuning, "contestants": results}


def table(result: dict[str, Any]) -> str:
    """The metrics as Markdown."""
    settings = result["settings"]
    peak = (settings["peak_tflops"] or 0.0) * 1e12 or max(result["ceiling_flops"])
    lines = [
        f"{result['device']}, {settings['precision']}, about {settings['tokens']:,} tokens a step; assumed peak "
        f"{peak / 1e12:,.2f} TFLOP/s (matrix product before and after: "
        + ", ".join(f"{flops / 1e12:,.2f}" for flops in result["ceiling_flops"])
        + ")",
        "",
        "| model | tuning | trainer | tokens/s | speed-up of lit_sft | share of peak FLOP/s | peak memory |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    for run in result["runs"]:
        own = run["contestants"]["lit_sft"]
        for entry in run["contestants"].values():
            start_of_line = f"| {run['shape']} | {run['tuning']} | {entry['label']} "
            if "failure" in entry or "failure" in own:
                lines.append(f"{start_of_line}| failed: {entry.get('failure', 'lit_sft').replace('|', ' ')} | | | |")
                continue
            found = summary(entry["rounds"])
            faster = "" if entry is own else f"{ratios(own['rounds'], entry['rounds'])[0]:.2f} x"
            lines.append(
                f"{start_of_line}| {found['tokens_per_second']:,.0f} | {faster} | "
                f"{entry['needed_flops'] / found['seconds'] / peak:.1%} | {found['peak_gigabytes']:.1f} GB |"
            )
    lines += ["", *_settings(result["runs"])]
    return "\n".join(lines) + "\n"


def _settings(runs: list[dict[str, Any]]) -> list[str]:
    entries = [entry for entry in runs[0]["contestants"].values() if entry["facts"]]
    return [f"- {entry['label']}: {entry['facts']['settings']}; {entry['facts']['versions']}" for entry in entries]


if __name__ == "__main__":
    main()
