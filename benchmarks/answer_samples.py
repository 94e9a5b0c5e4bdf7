#!/usr/bin/env python3
"""Whether one sample per answer costs as much as whole conversations, when what samples share is computed once.

    python benchmarks/answer_samples.py --records chats.jsonl --pretrained FOLDER

Two ways to train every answer of the same conversations, each in the steps of training on one device:
- `conversations`: `--data.mask firefly_multi_turn`, `--conversations` in a step
- `answers`: `--data.samples answer --data.group_by_prefix true --data.mask output_only`, on average as many
  conversations in a step

They take turns, step by step, until both have finished the epoch, after a row each that is not timed. A step is timed
with the building of its batch. The learning rate is zero, so that every step sees the same weights: over an epoch, both
must supervise the same number of tokens and have the same loss, to a relative 1e-5 in float32 or 2e-2 in bf16.
`answers, nothing shared` is what answers cost without `--data.share_prefixes`; it is counted, not run.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

if not __package__:  # run as a script
    sys.path[0] = str(Path(__file__).parents[1])

import torch

from benchmarks.peers.protocol import LORA_RANK
from benchmarks.rows import sharing_sampler, template_of
from benchmarks.runner import TOLERANCE
from benchmarks.shapes import add_model_options, chosen_model
from data_modules.batching.batch import Batch, collate
from data_modules.encoding.example_store import ExampleStore
from data_modules.encoding.tokenizers import load_tokenizer
from data_modules.errors import UserError
from data_modules.records.splits import Samples
from data_modules.rendering.masking import MASKS, LossMask
from data_modules.sft_data_module import SFTDataModule
from lit_sft.models.adapters import LoraSettings
from lit_sft.models.backbone import BackboneSettings, build_backbone
from lit_sft.models.loss import supervised_loss
from lit_sft.training.optimization import OptimizerSettings, build_optimizer

Step = Callable[[list[Batch]], float]
"""Trains on the micro-batches of a step; returns the sum of the nats."""

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass
class Way:
    """A way to train the answers of some conversations.

    Attributes:
        store: Its rows.
        mask: Which of their tokens are supervised.
        steps: The rows of each micro-batch of each step of an epoch.
        tokens: In the rows of the epoch.
        computed: Tokens computed in the epoch.
        supervised: Tokens supervised in the epoch.
        nats: Sum over them.
        seconds: Of each step.
    """

    store: ExampleStore
    mask: LossMask
    steps: list[tuple[tuple[int, ...], ...]]
    tokens: int = 0
    computed: int = 0
    supervised: float = 0.0
    nats: float = 0.0
    seconds: list[float] = field(default_factory=list)

    def take(self, number: int, step: Step, clock: str) -> None:
        """Train on a step of the epoch, and time it from its rows to the end."""
        start = CLOCKS[clock]()
        batches = [
            collate([self.store[index] for index in indices], mask=self.mask, pack=True, share_prefixes=True)
            for indices in self.steps[number]
        ]
        self.nats += step(batches)
        self.seconds.append(CLOCKS[clock]() - start)
        for batch in batches:
            self.tokens += sum(batch.lengths)
            self.computed += len(batch.tree.computed) if batch.tree else sum(batch.lengths)
            self.supervised += batch.normaliser


def main() -> None:
    """Measure and print a table."""
    options = arguments()
    torch.set_num_threads(options.threads)
    model, options.tokenizer = chosen_model(options)
    conversations, answers = ways(
        options.records, options.tokenizer, options.conversations, max_length=options.max_length,
        budget=options.token_budget,
    )  # fmt: skip
    step = stepper(model, options.tokenizer, options.tuning, options.precision)
    run(conversations, answers, step, options.clock)
    check_agreement(conversations, answers, TOLERANCE[options.precision])
    print(table(conversations, answers))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", default="examples/world/conversations.jsonl", help="file of conversations")
    add_model_options(parser)
    parser.add_argument("--tuning", choices=("full", "lora"), default="full")
    parser.add_argument("--precision", choices=("bf16", "float32"), default="float32")
    parser.add_argument("--conversations", type=int, default=8, help="conversations per step")
    parser.add_argument("--max-length", type=int, default=4096, help="maximum number of tokens in a row")
    parser.add_argument("--token-budget", type=int, default=16384, help="most computed tokens in a micro-batch")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    cpu = "time of a step: wall, or that of the processor, which other processes affect less"
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall", help=cpu)
    return parser.parse_args()


def ways(records: str, tokenizer: str, num_conversations: int, *, max_length: int, budget: int) -> tuple[Way, Way]:
    """Both ways to train the answers of a file: whole conversations, and one sample per answer.

    Raises:
        SystemExit: If rows are too long, or no conversation has two answers.
    """
    whole = _rows(records, tokenizer, max_length, "conversation")
    answers = _rows(records, tokenizer, max_length, "answer")
    if len(answers) == len(whole):
        raise SystemExit(f"{records}: every conversation has one answer; provide conversations with several.")
    per_step = round(num_conversations * len(answers) / len(whole))
    return (
        Way(whole, MASKS["firefly_multi_turn"], _steps(whole, num_conversations, budget, is_grouped=False)),
        Way(answers, MASKS["output_only"], _steps(answers, per_step, budget, is_grouped=True)),
    )


def _rows(records: str, tokenizer: str, max_length: int, samples: Samples) -> ExampleStore:
    data = SFTDataModule(
        records, tokenizer=tokenizer, template=template_of(tokenizer), samples=samples, max_length=max_length,
        val_fraction=0.0, test_fraction=0.0,
    )  # fmt: skip
    try:
        data.setup("fit")
    except UserError as error:
        raise SystemExit(str(error)) from None
    if cut := data.ledgers["train"]["truncated"]:  # their answers would not be the same both ways
        raise SystemExit(f"{records}: {cut} rows have more than {max_length} tokens; raise --max-length.")
    return data.stores["train"]


def _steps(store: ExampleStore, rows: int, budget: int, *, is_grouped: bool) -> list[tuple[tuple[int, ...], ...]]:
    """The micro-batches of each step of the first epoch, as training plans them."""
    return [plan.micro_batches for plan in sharing_sampler(store, rows, budget, is_grouped=is_grouped)]


def stepper(model: str, tokenizer: str, tuning: str, precision: str) -> Step:
    """A function that trains on a step, with the optimiser's work but a learning rate of zero."""
    torch.manual_seed(0)
    lora = LoraSettings(rank=LORA_RANK, alpha=2 * LORA_RANK)
    settings = BackboneSettings(pretrained=model, tuning=tuning, lora=lora)  # type: ignore[arg-type]
    backbone = build_backbone(settings, load_tokenizer(tokenizer))
    optimizer = build_optimizer(backbone, OptimizerSettings(lr=1e-5))
    for group in optimizer.param_groups:
        group["lr"] = 0.0

    def step(batches: list[Batch]) -> float:
        nats = 0.0
        weight = sum(batch.normaliser for batch in batches)
        for batch in batches:
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                total, _ = supervised_loss(backbone, batch)
            (total / weight).backward()  # type: ignore[no-untyped-call]
            nats += float(total.detach())
        optimizer.step()
        optimizer.zero_grad()
        return nats

    return step


def run(conversations: Way, answers: Way, step: Step, clock: str) -> None:
    """Run an epoch of both in turns, after a step of each that is not timed.

    Args:
        conversations: One way.
        answers: The other.
        step: Trains on a step.
        clock: `wall` or `cpu`.
    """
    for way in (conversations, answers):
        step([collate([way.store[0]], mask=way.mask, pack=True)])
    for number in range(max(len(conversations.steps), len(answers.steps))):
        for name, way in (("conversations", conversations), ("answers", answers)):
            if number < len(way.steps):
                way.take(number, step, clock)
                print(f"{name}, step {number + 1} of {len(way.steps)}: {way.seconds[-1]:.1f} s", file=sys.stderr)


def check_agreement(conversations: Way, answers: Way, tolerance: float) -> None:
    """Check that both ways have trained the same.

    Raises:
        SystemExit: If the number of supervised tokens differs, or the loss by more than the relative tolerance.
    """
    losses = [way.nats / way.supervised for way in (conversations, answers)]
    is_same = conversations.supervised == answers.supervised
    if not is_same or not abs(losses[0] - losses[1]) <= tolerance * losses[0]:
        sys.exit(
            f"conversations have {conversations.supervised:.0f} supervised tokens and a loss of {losses[0]:.7f}, "
            f"answers {answers.supervised:.0f} and {losses[1]:.7f}; expected the same, to a relative {tolerance:g}."
        )


def table(conversations: Way, answers: Way) -> str:
    """The costs of an epoch as Markdown, relative to whole conversations."""
    seconds = sum(conversations.seconds)
    lines = [
        "| rows | steps | tokens in rows | tokens computed | | supervised | loss | seconds | |",
        "|---|" + "---:|" * 8,
    ]
    for name, way in (("conversations", conversations), ("answers", answers)):
        computed, taken = way.computed / conversations.computed, sum(way.seconds)
        lines.append(
            f"| {name} | {len(way.steps)} | {way.tokens:,} | {way.computed:,} | {computed:.3f} x | "
            f"{way.supervised:,.0f} | {way.nats / way.supervised:.6f} | {taken:.1f} | {taken / seconds:.3f} x |"
        )
    unshared = answers.tokens / conversations.computed
    lines.append(f"| answers, nothing shared | | {answers.tokens:,} | {answers.tokens:,} | {unshared:.3f} x | | | | |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
