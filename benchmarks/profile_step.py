#!/usr/bin/env python3
"""Profile a training step on a CPU, by kind of work.

    python benchmarks/profile_step.py [--records rows.json] [--pretrained FOLDER]
    python benchmarks/profile_step.py --tuning full --precision bf16 --unshared

Profiles lit_sft's steps (packed rows with shared beginnings, the head on supervised tokens only), full and LoRA, in
float32 and, if the CPU is fast at it, bf16. torch's profiler measures each operation without those that it calls.
Operations are grouped by name, by the range in which they ran and, for the head, by a dimension as large as the
vocabulary. Casts are copies into another dtype, outside of head and attention: mostly those of autocast. `other` is the
rest of the step: Python, memory, autograd's bookkeeping. The shares in a column sum to 100 %. The last rows are the
fastest of the profiled steps, which all have the same rows; and the floating-point operations that its rows need one by
one, per second, divided by the rate of a matrix product in the same precision, as in `compare.py`.

With --unshared, this file and `shapes.py` also profile older versions, if copied into their `benchmarks/`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a script
    sys.path[0] = str(Path(__file__).parents[1])

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.peers.protocol import LORA_RANK
from benchmarks.rows import MASK, add_row_options, draw_rows
from benchmarks.shapes import (
    add_model_options,
    bf16_is_slow,
    chosen_model,
    matrix_product_flops,
    work_of_folder,
)
from data_modules.batching.batch import collate
from data_modules.encoding.example import Example
from data_modules.encoding.tokenizers import load_tokenizer
from data_modules.rendering.masking import MASKS
from lit_sft.models.adapters import LoraSettings, causal_lm
from lit_sft.models.backbone import BackboneSettings, build_backbone
from lit_sft.models.loss import supervised_loss
from lit_sft.training.optimization import OptimizerSettings, build_optimizer

GROUPS = ("products of the layers", "vocabulary head", "attention", "element-wise, norms, rotary", "casts",
          "optimiser", "data", "other")  # fmt: skip
CASTS = ("aten::_to_copy", "ToCopyBackward0")
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "matmul", "linear", "mkldnn")
BOOKKEEPING = (
    "empty",
    "view",
    "t",
    "transpose",
    "as_strided",
    "detach",
    "reshape",
    "expand",
    "slice",
    "select",
    "split",
)


def main() -> None:
    """Profile every combination of tuning and precision, and print a table."""
    options = arguments()
    torch.set_num_threads(options.threads)
    precisions = options.precision or (["float32"] if bf16_is_slow() else ["bf16", "float32"])
    model, options.tokenizer = chosen_model(options)
    chosen = {"template": options.template} if options.template else {}
    with tempfile.TemporaryDirectory() as folder:
        count = options.batch_size * (1 + options.warm_up)
        store = draw_rows(options.records, options.tokenizer, count, count, Path(folder), max_length=512, **chosen)
        groups = [list(store)[i : i + options.batch_size] for i in range(0, count, options.batch_size)]
    columns, shares = {}, []
    for tuning in options.tuning:
        for precision in precisions:
            times = profile_step(
                model, options.tokenizer, groups, tuning, precision, steps=options.steps, shares=not options.unshared
            )
            columns[f"{tuning}, {precision}"] = times
            shares.append(share_of_ceiling(model, groups[-1], tuning, precision, sum(times.values()) / 1e6))
    print(table(columns, shares))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_options(parser)
    add_row_options(parser)
    parser.add_argument("--tuning", nargs="+", choices=("full", "lora"), default=["full", "lora"])
    parser.add_argument("--precision", nargs="+", choices=("bf16", "float32"), help="default: all that are fast")
    parser.add_argument("--unshared", action="store_true", help="compute common beginnings again for each row")
    parser.add_argument("--batch-size", type=int, default=8, help="rows of a step")
    parser.add_argument("--warm-up", type=int, default=2, help="warm-up steps before the profiled ones")
    parser.add_argument("--steps", type=int, default=3, help="profiled steps")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    return parser.parse_args()


def profile_step(
    model: str,
    tokenizer: str,
    groups: list[list[Example]],
    tuning: str,
    precision: str,
    *,
    steps: int = 1,
    shares: bool = True,
) -> Counter[str]:
    """Microseconds of a step on the last group, by kind of work, in the fastest of several steps.

    Args:
        model: Folder of the model.
        tokenizer: Folder of the tokenizer.
        groups: The rows of each step.
        tuning: `full` or `lora`.
        precision: `bf16` or `float32`.
        steps: Steps to profile, after one on each of the other groups.
        shares: Whether what rows have in common at their beginning is computed once.
    """
    torch.manual_seed(0)
    lora = LoraSettings(rank=LORA_RANK, alpha=2 * LORA_RANK)
    settings = BackboneSettings(pretrained=model, tuning=tuning, lora=lora)  # type: ignore[arg-type]
    backbone = build_backbone(settings, load_tokenizer(tokenizer))
    optimizer = build_optimizer(backbone, OptimizerSettings(lr=1e-5))
    vocabulary = causal_lm(backbone).get_output_embeddings().weight.shape[0]
    sharing = {"share_prefixes": True} if shares else {}

    def step(examples: list[Example]) -> None:
        with record_function("data"):
            batch = collate(examples, mask=MASKS[MASK], pack=True, **sharing)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            total, _ = supervised_loss(backbone, batch)
        (total / batch.normaliser).backward()  # type: ignore[no-untyped-call]
        with record_function("optimiser"):
            optimizer.step()
            optimizer.zero_grad()

    for examples in groups[:-1]:
        step(examples)
    profiled = []
    for _ in range(steps):
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler, record_function("step"):
            step(groups[-1])
        profiled.append(by_group(list(profiler.events()), vocabulary))
    return min(profiled, key=lambda times: sum(times.values()))


def share_of_ceiling(model: str, rows: Sequence[Example], tuning: str, precision: str, seconds: float) -> float:
    """The rate of the operations that the rows need one by one, relative to that of a matrix product."""
    supervised = sum(int((row.loss_weights(MASKS[MASK])[1:] > 0).sum()) for row in rows)
    needed = work_of_folder(model).flops([len(row.input_ids) for row in rows], supervised, tuning)
    return needed / seconds / matrix_product_flops(precision)


def by_group(events: list[Any], vocabulary: int) -> Counter[str]:
    """Sum each event's own time by group; the groups add up to the whole step.

    Args:
        events: From the profiler, with shapes, inside a range `step`.
        vocabulary: Rows of the head.
    """
    whole = next(event for event in events if event.name == "step")
    times: Counter[str] = Counter(dict.fromkeys(GROUPS, 0.0))  # type: ignore[arg-type]
    for event in events:
        inside = whole.time_range.start <= event.time_range.start and event.time_range.end <= whole.time_range.end
        if inside and event is not whole and event.thread == whole.thread:
            times[group_of(event, vocabulary)] += event.self_cpu_time_total
    times["other"] += whole.cpu_time_total - sum(times.values())
    return times


def group_of(event: Any, vocabulary: int) -> str:
    """The kind of work of an event."""
    chain = [event]
    while chain[-1].cpu_parent is not None:
        chain.append(chain[-1].cpu_parent)
    names = [link.name for link in chain]
    for name in ("data", "optimiser"):
        if name in names:
            return name
    if any("attention" in name.lower() for name in names):
        return "attention"
    operation = event.name.removeprefix("aten::").strip("_")
    if not event.name.startswith(("aten::", "mkldnn")) or operation in BOOKKEEPING or operation.startswith("empty"):
        return "other"
    if any(vocabulary in shape for link in chain for shape in link.input_shapes if shape) and not _looks_up(names):
        return "vocabulary head"
    if operation.startswith(PRODUCTS):
        return "products of the layers"
    return "casts" if any(name.endswith(CASTS) for name in names) else "element-wise, norms, rotary"


def _looks_up(names: list[str]) -> bool:
    """Whether an event belongs to the embedding, which has as many rows as the head."""
    return any("embedding" in name.lower() for name in names)


def table(columns: dict[str, Counter[str]], of_ceiling: Sequence[float]) -> str:
    """The shares of time, and each step's share of the ceiling, as a Markdown table."""
    lines = ["| | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for group in GROUPS:
        shares = (times[group] / sum(times.values()) for times in columns.values())
        lines.append(f"| {group} | " + " | ".join(f"{share:.1%}" for share in shares) + " |")
    seconds = " | ".join(f"{sum(times.values()) / 1e6:.2f} s" for times in columns.values())
    ceilings = " | ".join(f"{share:.0%}" for share in of_ceiling)
    return "\n".join([*lines, f"| the step, profiled | {seconds} |", f"| share of the ceiling | {ceilings} |"])


if __name__ == "__main__":
    main()
