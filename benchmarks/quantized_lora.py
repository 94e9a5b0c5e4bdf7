#!/usr/bin/env python3
"""What a quantised base saves and costs under LoRA: memory, seconds of a step, and held-out loss after the same steps.

    python benchmarks/quantized_lora.py [--records rows.json] [--pretrained FOLDER] [--steps 6] [--precision bf16-mixed]

Bases: `float32`; and `whole`, `int8` and `nf4` (--model.backbone.quantization) in the precision given. Each runs in a
fresh process with the same rows and seed. The table shows the memory of the weights, adapters included; the peak of
resident memory, libraries and loading included; the mean time of the steps after the first; and the losses.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, get_args

if not __package__:  # run as a script
    sys.path[0] = str(Path(__file__).parents[1])

import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from benchmarks.fresh_process import measured_apart
from benchmarks.rows import add_row_options, template_of
from benchmarks.shapes import add_model_options, chosen_model
from data_modules.sft_data_module import SFTDataModule
from lit_sft.models.adapters import LoraSettings
from lit_sft.models.backbone import BackboneSettings
from lit_sft.models.quantization import Quantization
from lit_sft.training.module import LitCausalLM
from lit_sft.training.optimization import OptimizerSettings

BASES: dict[str, Any] = {"float32": {}, "whole": {}} | {kind: {"quantization": kind} for kind in get_args(Quantization)}


class StepEnds(Callback):
    """Notes when each step ends."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        """A step has ended."""
        self.times.append(time.perf_counter())


def main() -> None:
    """Measure every base, or, in a process of its own, one."""
    options = arguments()
    if options.base:
        print(json.dumps(measure(options)))
        return
    print("| base | weights | peak | a step | loss before | after |\n|---|" + "---:|" * 5)
    for base in BASES:
        found = measured_apart(__file__, "--base", base)
        sizes = " | ".join(f"{found[name]:,.0f} MB" for name in ("weights", "peak"))
        losses = " | ".join(f"{found[name]:.4f}" for name in ("before", "after"))
        print(f"| {base} | {sizes} | {found['seconds']:.2f} s | {losses} |", flush=True)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_options(parser)
    add_row_options(parser)
    parser.add_argument("--steps", type=int, default=6, help="optimiser steps, at least 2")
    parser.add_argument("--batch-size", type=int, default=4, help="rows of a step")
    parser.add_argument("--val-batches", type=int, default=4, help="batches of held-out rows")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--precision", default="bf16-mixed", help="of all but float32")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--base", choices=tuple(BASES), help="measure only this, in this process")
    options = parser.parse_args()
    if options.steps < 2:
        parser.error(f"--steps {options.steps}: expected at least 2; the first is not timed")
    return options


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Megabytes, seconds of a step, and held-out losses."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(options.threads)
    seed_everything(0, verbose=False)
    precision = "32-true" if options.base == "float32" else options.precision
    model, tokenizer = chosen_model(options)
    data = SFTDataModule(
        options.records, tokenizer=tokenizer, template=options.template or template_of(tokenizer), max_length=512,
        batch_size=options.batch_size, val_fraction=0.1,
    )  # fmt: skip
    settings = BackboneSettings(model, tuning="lora", lora=LoraSettings(rank=16, alpha=32), **BASES[options.base])
    module = LitCausalLM(settings, OptimizerSettings(lr=options.lr, schedule="constant"))
    ends = StepEnds()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu", devices=1, max_steps=options.steps, precision=precision, callbacks=[ends],
            limit_val_batches=options.val_batches, num_sanity_val_steps=-1, enable_checkpointing=False, logger=False,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        )  # fmt: skip
        trainer.fit(module, datamodule=data)
    tensors = [*module.backbone.parameters(), *module.backbone.buffers()]
    weights = sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    before, after = module.metrics_before, module.metrics["val"]
    assert (before["step"], after["step"]) == (0, options.steps), "validations are before and after the steps"
    seconds = (ends.times[-1] - ends.times[0]) / (options.steps - 1)
    return {"weights": weights, "peak": peak, "seconds": seconds, "before": before["loss"], "after": after["loss"]}


if __name__ == "__main__":
    main()
