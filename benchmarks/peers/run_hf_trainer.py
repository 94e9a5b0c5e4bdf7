"""transformers' Trainer as a contestant."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if not __package__:  # run as a script
    sys.path[0] = str(Path(__file__).parents[2])

from peft import get_peft_model
from transformers import DataCollatorForSeq2Seq, DataCollatorWithFlattening, Trainer, TrainingArguments

from benchmarks.peers.hf_common import (
    TurnByTurn,
    counting,
    load_model,
    load_tokenizer,
    lora,
    precision_of,
    same_for_all,
)
from benchmarks.peers.protocol import Settings, Turns


def main() -> None:
    """Train one step per turn."""
    turns = Turns()
    settings = turns.settings
    chosen = {} if settings.variant == "default" else tuned(settings)
    callback, tokenizer = TurnByTurn(turns), load_tokenizer(settings)
    model = load_model(settings)
    # the usual collator for rows with labels: pads both to the longest row of the batch
    padding = DataCollatorForSeq2Seq(tokenizer)
    collator = DataCollatorWithFlattening() if settings.variant == "flat" else padding
    args = TrainingArguments(**same_for_all(settings), **chosen)
    precision = precision_of(model, args)
    if settings.tuning == "lora":
        model = get_peft_model(model, lora(model))
    trainer = counting(Trainer)(
        model=model, args=args, train_dataset=settings.examples(), data_collator=collator, callbacks=[callback]
    )
    callback.trainer = trainer
    turns.ready(precision=precision, settings=chosen | {"collator": type(collator).__name__})
    trainer.train()


def tuned(settings: Settings) -> dict[str, Any]:
    """The settings that differ from the defaults.

    The defaults already give no activation checkpointing, fused AdamW, SDPA attention and weights as on disk.
    - bf16: if the run asks for it; autocast over float32 weights, as in lit_sft
    - not torch_compile: the first step of six layers took 67 s instead of 11, and new lengths recompile
    - packed rows have no attention mask: transformers builds a block-diagonal one from the restarting positions, on a
      CPU too, as the loss check confirms
    """
    return {"bf16": settings.precision == "bf16"}


if __name__ == "__main__":
    main()
