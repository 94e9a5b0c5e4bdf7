#!/usr/bin/env python3
"""What settings that save memory cost: seconds of each step and peak memory, on a CPU in bf16 autocast.

    python benchmarks/step_memory.py [--records rows.json] [--pretrained FOLDER] [--rounds 3]

Settings: `neither`; `compile`, --model.backbone.compile true, which needs a C++ compiler; and `checkpointing`,
--model.backbone.gradient_checkpointing true. Each runs in a fresh process with the same rows, in turns. The table shows
the fastest of the rounds for each step, the peak of resident memory, libraries included, and the first step's loss.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

if not __package__:  # run as a script
    sys.path[0] = str(Path(__file__).parents[1])

import torch

from benchmarks.fresh_process import measured_apart
from benchmarks.rows import MASK, add_row_options, draw_rows
from benchmarks.shapes import add_model_options, chosen_model
from data_modules.batching.batch import collate
from data_modules.encoding.tokenizers import load_tokenizer
from data_modules.rendering.masking import MASKS
from lit_sft.models.backbone import BackboneSettings, build_backbone
from lit_sft.models.loss import supervised_loss
from lit_sft.training.optimization import OptimizerSettings, build_optimizer

SETTINGS = {"neither": {}, "compile": {"compile": True}, "checkpointing": {"gradient_checkpointing": True}}


def main() -> None:
    """Measure every setting, or, in a process of its own, one."""
    options = arguments()
    if options.setting:
        print(json.dumps(measure(options)))
        return
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in SETTINGS}
    for turn in range(options.rounds):
        for name, done in results.items():
            print(f"round {turn + 1} of {options.rounds}: {name}", file=sys.stderr, flush=True)
            done.append(measured_apart(__file__, "--setting", name))
    print(table(results))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_options(parser)
    add_row_options(parser)
    parser.add_argument("--batch-size", type=int, default=8, help="rows of a step")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--setting", choices=tuple(SETTINGS), help="measure only this, in this process")
    return parser.parse_args()


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds and tokens of each step, peak memory in gigabytes, and the loss of the first step."""
    torch.set_num_threads(options.threads)
    model, tokenizer = chosen_model(options)
    num_rows = options.batch_size * options.steps
    with tempfile.TemporaryDirectory() as folder:
        rows = draw_rows(
            options.records,
            tokenizer,
            num_rows,
            50 * options.batch_size,
            Path(folder),
            max_length=512,
            template=options.template,
        )
        examples = [rows[index] for index in range(num_rows)]
    torch.manual_seed(0)
    backbone = build_backbone(
        BackboneSettings(pretrained=model, **SETTINGS[options.setting]), load_tokenizer(tokenizer)
    )
    optimizer = build_optimizer(backbone, OptimizerSettings(lr=1e-5))
    seconds, tokens, losses = [], [], []
    for first in range(0, num_rows, options.batch_size):
        batch = collate(examples[first : first + options.batch_size], mask=MASKS[MASK], pack=True, share_prefixes=True)
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            total, _ = supervised_loss(backbone, batch)
        (total / batch.normaliser).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
        tokens.append(batch.input_ids.numel() if batch.tree is None else len(batch.tree.computed))
        losses.append(float(total.detach()) / batch.normaliser)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {"seconds": seconds, "tokens": tokens, "peak": peak, "loss": losses[0]}


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown, one row for each setting."""
    tokens = next(iter(results.values()))[0]["tokens"]
    steps = [f"step {number}, {count:,} tokens" for number, count in enumerate(tokens, start=1)]
    lines = [f"| setting | {' | '.join(steps)} | peak | first loss |", "|---|" + "---:|" * (len(steps) + 2)]
    for name, rounds in results.items():
        fastest = [f"{min(times):.2f} s" for times in zip(*(done["seconds"] for done in rounds), strict=True)]
        peak = max(done["peak"] for done in rounds)
        lines.append(f"| {name} | {' | '.join(fastest)} | {peak:.1f} GB | {rounds[0]['loss']:.4f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
