#!/usr/bin/env python3
"""Time one training step three ways, on the same weights, rows and order.

    python benchmarks/train_step.py --records rows.json [--pretrained FOLDER] [--precision bf16] [--tuning lora]

- `full logits`: padded rows, the model's own forward with labels: the way of a plain training loop
- `padded`: padded rows, the vocabulary head on supervised tokens only
- `packed`: documents end to end, the same head: what lit_sft does by default

Before anything is timed, the losses of the first step must agree. The ways take turns, so that a machine whose speed
drifts treats them alike; a matrix product timed before and after gives the ceiling. Writes a table and a JSON file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent.parent))

from data_modules.batch import Batch, collate
from data_modules.masking import MASKS
from data_modules.sft_data_module import SFTDataModule
from data_modules.templates import SegmentKind
from lit_sft.attention import ordinary_attention
from lit_sft.backbone import BackboneSettings, LoraSettings, build_backbone, causal_lm
from lit_sft.loss import supervised_loss

WAYS = ("full logits", "padded", "packed")
QWEN_SHAPED = {
    "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 4,
    "num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True,
}  # fmt: skip
TOLERANCE = {"float32": 1e-5, "bf16": 2e-2}


def main() -> None:
    """Time all ways in this process, then each alone in one of its own for its memory."""
    options = arguments()
    torch.set_num_threads(options.threads)
    if options.only:
        step = stepper(options, options.only)
        for batch in batches(options, options.only):
            step(batch)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return
    result = measure(options)
    for way in WAYS:
        command = [sys.executable, __file__, *sys.argv[1:], "--only", way]
        result["ways"][way]["peak_gigabytes"] = int(subprocess.check_output(command).split()[-1]) / 2**20
    print_table(result)
    Path(options.output).write_text(json.dumps(result, indent=1), encoding="utf-8")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", default="examples/world/train.json", help="file of records")
    parser.add_argument("--pretrained", help="folder of a model; without it a Qwen2.5-0.5B-shaped one of 4 layers")
    parser.add_argument("--tokenizer", default="examples/tokenizer", help="tokenizer of the random model")
    parser.add_argument("--tuning", choices=("full", "lora"), default="full")
    parser.add_argument("--precision", choices=tuple(TOLERANCE), default="float32")
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5, help="steps of each way")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", default="train_step.json")
    parser.add_argument("--only", choices=WAYS, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Tokens per second of every way, by turns.

    Raises:
        SystemExit: If the losses of the first step differ.
    """
    steps = {way: stepper(options, way) for way in WAYS}
    rows = {way: batches(options, way) for way in WAYS}
    first = {way: steps[way](rows[way][0]) for way in WAYS}
    spread = max(first.values()) - min(first.values())
    if spread > TOLERANCE[options.precision]:
        sys.exit(f"the losses of the first step differ by {spread:.2e}: {first}")
    ceilings, speeds = [ceiling(options.precision)], {way: [] for way in WAYS}
    for index in range(1, options.rounds + 1):
        for way in WAYS:
            batch = rows[way][index]
            start = time.perf_counter()
            steps[way](batch)
            speeds[way].append(batch.num_tokens / (time.perf_counter() - start))
    ceilings.append(ceiling(options.precision))
    return {
        "settings": {**vars(options), "torch": torch.__version__},
        "first_loss": first,
        "ceiling_gigaflops": ceilings,
        "ways": {way: summary(speeds[way], speeds["full logits"]) for way in WAYS},
    }


def summary(speeds: list[float], baseline: list[float]) -> dict[str, Any]:
    """Median speed, and the median ratio to the baseline round by round with its range."""
    ratios = [speed / base for speed, base in zip(speeds, baseline, strict=True)]
    return {
        "tokens_per_second": statistics.median(speeds),
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
    }


def batches(options: argparse.Namespace, way: str) -> list[Batch]:
    """The same rows in the same order for every way."""
    data = SFTDataModule(
        options.records, tokenizer=options.pretrained or options.tokenizer, template="chatml", val_fraction=0.0,
        test_fraction=0.0, max_length=options.max_length,
    )  # fmt: skip
    data.setup("fit")
    store, size = data.stores["train"], options.batch_size
    order = torch.randperm(len(store), generator=torch.Generator().manual_seed(0)).tolist()
    groups = [[store[i] for i in order[k * size : (k + 1) * size]] for k in range(options.rounds + 1)]
    return [collate(group, mask=MASKS["output_only"], pack=way == "packed") for group in groups]


def stepper(options: argparse.Namespace, way: str) -> Callable[[Batch], float]:
    """A function that makes one optimiser step and gives the loss before it."""
    tokenizer = SFTDataModule(options.records, tokenizer=options.pretrained or options.tokenizer).tokenizer
    torch.manual_seed(0)
    config = None if options.pretrained else QWEN_SHAPED
    lora = LoraSettings(rank=16, alpha=32)
    settings = BackboneSettings(pretrained=options.pretrained, config=config, tuning=options.tuning, lora=lora)
    backbone = build_backbone(settings, tokenizer)
    optimizer = torch.optim.AdamW([p for p in backbone.parameters() if p.requires_grad], lr=1e-5, fused=True)

    def step(batch: Batch) -> float:
        with autocast(options.precision):
            loss = plain_loss(backbone, batch) if way == "full logits" else lit_sft_loss(backbone, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def lit_sft_loss(backbone: nn.Module, batch: Batch) -> Tensor:
    """The mean over supervised tokens as lit_sft computes it."""
    total, _ = supervised_loss(backbone, batch)
    return total / batch.normaliser


def plain_loss(backbone: nn.Module, batch: Batch) -> Tensor:
    """The same mean from the model's own forward with labels."""
    labels = batch.input_ids.masked_fill(batch.weights == 0, -100)
    with ordinary_attention(causal_lm(backbone)):
        mask = (batch.kinds != SegmentKind.PADDING).long()
        loss: Tensor = backbone(input_ids=batch.input_ids, attention_mask=mask, labels=labels, use_cache=False).loss
    return loss


def ceiling(precision: str, size: int = 2048) -> float:
    """Giga floating-point operations a second of a square matrix product: the machine's own limit just now."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times) / 1e9


@contextlib.contextmanager
def autocast(precision: str) -> Iterator[None]:
    """bfloat16 products where asked for."""
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        yield


def print_table(result: dict[str, Any]) -> None:
    """The figures as a Markdown table."""
    options = result["settings"]
    size, threads = options["batch_size"], options["threads"]
    print(f"{options['tuning']}, {options['precision']}, batch of {size} rows, {threads} threads")
    print("| way | real tokens/s | against full logits | peak memory |\n|---|---:|---:|---:|")
    for way, row in result["ways"].items():
        low, high = row["ratio_range"]
        print(
            f"| {way} | {row['tokens_per_second']:,.0f} | {row['ratio']:.2f} ({low:.2f} to {high:.2f}) | "
            f"{row['peak_gigabytes']:.1f} GB |"
        )
    print("matrix product before and after:", ", ".join(f"{c:,.0f} GFLOP/s" for c in result["ceiling_gigaflops"]))


if __name__ == "__main__":
    main()
