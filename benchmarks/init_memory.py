#!/usr/bin/env python3
"""How far the memory that `init` expects of a step is from what a step takes, on a CPU.

    python benchmarks/init_memory.py [--pretrained FOLDER] [--tokens 1024 4096] [--precision 32-true bf16-mixed]

Each row is a process of its own: a step of training with random weights, on documents of 256 tokens in one pass. The
peak is that of resident memory beyond what the process had before the model was built.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from itertools import product
from pathlib import Path

if not __package__:  # run as a script
    sys.path[0] = str(Path(__file__).parents[1])

import numpy as np
import torch

from data_modules.encoding.example import Example
from data_modules.encoding.tokenizers import load_tokenizer, num_ids
from data_modules.rendering.masking import MASKS
from data_modules.rendering.segments import SegmentKind
from lit_sft.init.command import SMALL_MODEL
from lit_sft.init.machine import Machine
from lit_sft.init.model_size import size_of
from lit_sft.init.proposal import Proposal
from lit_sft.init.trial import Passes, build
from lit_sft.memory import peak_memory
from lit_sft.models.adapters import LoraSettings
from lit_sft.models.backbone import BackboneSettings, load_config

_LENGTH = 256


def main() -> None:
    """Print a row for every combination; or, in a process of its own, measure one."""
    options = arguments()
    if options.case:
        print(json.dumps(measure(options.pretrained, *json.loads(options.case))))
        return
    print(
        "| tuning | precision | recomputed | tokens | expected | measured | ratio |\n|---|---|---|---:|---:|---:|---:|"
    )
    for case in product(options.tuning, options.precision, (False, True), options.tokens):
        command = [sys.executable, __file__, *sys.argv[1:], "--case", json.dumps(case)]
        expected, measured = json.loads(subprocess.check_output(command, text=True).splitlines()[-1])
        tuning, precision, is_recomputed, tokens = case
        print(
            f"| {tuning} | {precision} | {'yes' if is_recomputed else 'no'} | {tokens:,} | {expected / 1e9:.2f} GB | "
            f"{measured / 1e9:.2f} GB | {measured / expected:.2f} |",
            flush=True,
        )


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretrained", help="folder of a model; default: the small one that `init` proposes")
    parser.add_argument("--tokens", type=int, nargs="+", default=[1024, 4096], help="tokens of a pass")
    parser.add_argument("--precision", nargs="+", default=["32-true", "bf16-mixed"])
    parser.add_argument("--tuning", nargs="+", default=["full", "lora"])
    parser.add_argument("--case", help="measure only this, in this process")
    return parser.parse_args()


def measure(pretrained: str | None, tuning: str, precision: str, is_recomputed: bool, tokens: int) -> tuple[int, int]:
    """Bytes that `init` expects of a step, and the peak of two."""
    lora = LoraSettings(rank=8, target_modules="all-linear")
    if pretrained:
        config = load_config(BackboneSettings(pretrained=pretrained))
    else:
        config = load_config(BackboneSettings(config={**SMALL_MODEL, "n_positions": _LENGTH}))
        config.vocab_size = num_ids(load_tokenizer("examples/tokenizer"))
    size = size_of(config, lora)
    expected = size.step_bytes(tuning, tokens, is_mixed=precision != "32-true", is_recomputed=is_recomputed)
    machine = Machine("cpu", "", 0, precision, "", 1.0)
    proposal = Proposal(_LENGTH, 1, tokens, tuning, "", is_recomputed, expected, True, 1, 0.0, tokens, 0.0, 1)
    kinds = np.full(_LENGTH, SegmentKind.FINAL_ANSWER, dtype=np.uint8)
    kinds[: _LENGTH // 2] = SegmentKind.USER
    draw = np.random.default_rng(0)
    examples = [
        Example(draw.integers(config.vocab_size, size=_LENGTH, dtype=np.int32), kinds, np.zeros(_LENGTH, np.int16), "")
        for _ in range(tokens // _LENGTH)
    ]
    before = resident()
    passes = Passes(build(config, lora, proposal, machine), proposal, machine, MASKS["output_only"])
    for documents in (examples[:1], examples):  # the optimiser's averages are made in the first step
        passes.run(*documents)
        passes.step()
    return expected, (peak_memory() or 0) - before


def resident() -> int:
    """Resident memory of this process, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1]) * 1024


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
