#!/usr/bin/env python3
"""What optimisers keep for each weight and cost: memory of the state, seconds of a step, and loss after the same steps.

    python benchmarks/optimizer_state.py [--shape gpt2] [--layers 4] [--steps 20] [--device cuda]

All weights of the model are trained, in float32, on the same rows from the same weights. `adamw_8bit` needs
`pip install 'lit_sft[8bit]'`; without it, its row says so. A step is the median of those after the first: the update
alone, without the forward and backward pass.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if not __package__:  # run as a script
    sys.path[0] = str(Path(__file__).parents[1])

import torch

from benchmarks.rows import MASK, add_row_options, draw_rows
from benchmarks.shapes import add_model_options, chosen_model, wait_for
from data_modules.batching.batch import collate
from data_modules.encoding.tokenizers import load_tokenizer
from data_modules.errors import UserError
from data_modules.rendering.masking import MASKS
from lit_sft.models.backbone import BackboneSettings, build_backbone
from lit_sft.models.loss import supervised_loss
from lit_sft.training.optimization import OptimizerSettings, build_optimizer

OPTIMISERS = {"adamw": 1.0, "adamw_8bit": 1.0, "adafactor": 10.0}
"""Their learning rates, as multiples of `--lr`."""


def main() -> None:
    """Measure every optimiser and print a table."""
    options = arguments()
    torch.set_num_threads(options.threads)
    print("| optimiser | state | for each weight | an update | first loss | last |\n|---|" + "---:|" * 5)
    for name in OPTIMISERS:
        try:
            found = measure(options, name)
        except UserError as error:
            print(f"| {name} | {error} |")
            continue
        state = f"{found['bytes'] / 1e6:,.1f} MB | {found['bytes'] / found['weights']:.2f} bytes"
        losses = " | ".join(f"{found[which]:.4f}" for which in ("first", "last"))
        print(f"| {name} | {state} | {found['seconds'] * 1e3:,.0f} ms | {losses} |", flush=True)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_options(parser)
    add_row_options(parser)
    parser.add_argument("--batch-size", type=int, default=8, help="rows of a step")
    parser.add_argument("--steps", type=int, default=20, help="optimiser steps, at least 2")
    parser.add_argument("--lr", type=float, default=1e-3, help="of AdamW; ten times as much for Adafactor")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    if options.steps < 2:
        parser.error(f"--steps {options.steps}: expected at least 2; the first is not timed")
    return options


def measure(options: argparse.Namespace, name: Any) -> dict[str, float]:
    """Number of weights, bytes of the state, seconds of an update, and the first and the last loss."""
    model, tokenizer = chosen_model(options)
    count = options.batch_size * options.steps
    with tempfile.TemporaryDirectory() as folder:
        rows = draw_rows(
            options.records, tokenizer, count, count, Path(folder), max_length=512, template=options.template
        )
        examples = [rows[index] for index in range(count)]
    backbone = build_backbone(BackboneSettings(pretrained=model), load_tokenizer(tokenizer)).to(options.device)
    optimizer = build_optimizer(backbone, OptimizerSettings(lr=OPTIMISERS[name] * options.lr, name=name))
    seconds, losses = [], []
    for first in range(0, count, options.batch_size):
        batch = collate(examples[first : first + options.batch_size], mask=MASKS[MASK], pack=True)
        total, _ = supervised_loss(backbone, batch.to(options.device))
        (total / batch.normaliser).backward()  # type: ignore[no-untyped-call]
        wait_for(options.device)
        start = time.perf_counter()
        optimizer.step()
        wait_for(options.device)
        seconds.append(time.perf_counter() - start)
        optimizer.zero_grad()
        losses.append(float(total.detach()) / batch.normaliser)
    return {
        "weights": sum(parameter.numel() for parameter in backbone.parameters()),
        "bytes": sum(tensor.numel() * tensor.element_size() for tensor in tensors_of(optimizer.state_dict()["state"])),
        "seconds": statistics.median(seconds[1:]),
        "first": losses[0],
        "last": losses[-1],
    }


def tensors_of(state: Any) -> Iterator[torch.Tensor]:
    """All tensors of an optimiser's state, however deep."""
    if isinstance(state, torch.Tensor):
        yield state
    elif isinstance(state, dict):
        for value in state.values():
            yield from tensors_of(value)


if __name__ == "__main__":
    main()
