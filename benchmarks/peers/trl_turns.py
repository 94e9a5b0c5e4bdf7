"""TRL's SFTTrainer as a contestant."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if not __package__:  # run as a script
    sys.path[0] = str(Path(__file__).parents[2])

import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from benchmarks.peers.trainers import (
    TurnByTurn,
    counting,
    load_model,
    load_tokenizer,
    lora,
    precision_of,
    same_for_all,
)
from benchmarks.peers.turns import Settings, Turns


def main() -> None:
    """Train by turns."""
    turns = Turns()
    settings = turns.settings
    chosen = tuned(settings) if settings.variant == "tuned" else default(settings)
    callback = TurnByTurn(turns)
    # float32 is what SFTTrainer loads when it is given a name instead of a model
    model = load_model(settings, dtype=torch.float32)
    args = SFTConfig(**same_for_all(settings), **chosen)
    precision = precision_of(model, args)
    trainer = counting(SFTTrainer)(
        model=model,
        args=args,
        train_dataset=Dataset.from_list(settings.examples()),
        processing_class=load_tokenizer(settings),
        peft_config=lora(model) if settings.tuning == "lora" else None,
        callbacks=[callback],
    )
    callback.trainer = trainer
    turns.ready(precision=precision, settings=chosen)
    trainer.train()


def default(settings: Settings) -> dict[str, Any]:
    """Nothing, so bf16 autocast and activation checkpointing; but not bf16 where that would only be a handicap."""
    return {"bf16": False} if settings.slow_bf16 else {}


def tuned(settings: Settings) -> dict[str, Any]:
    """What is not the default already: its AdamW is fused, its attention is SDPA, its loss makes no full logits."""
    return {"bf16": settings.precision == "bf16", "gradient_checkpointing": False}


if __name__ == "__main__":
    main()
