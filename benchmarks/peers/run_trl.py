"""TRL's SFTTrainer as a contestant."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

if not __package__:  # run as a script
    sys.path[0] = str(Path(__file__).parents[2])

import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

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
    """Train by turns."""
    turns = Turns()
    settings = turns.settings
    chosen = default(settings) if settings.variant == "default" else tuned(settings)
    callback = TurnByTurn(turns)
    # float32 is what SFTTrainer loads when it is given a name instead of a model
    model = load_model(settings, dtype=torch.float32, **attention(settings))
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


def attention(settings: Settings) -> dict[str, str]:
    """Flash attention for rows end to end where it is installed, which is what TRL's documents ask for."""
    has_flash = settings.device == "cuda" and importlib.util.find_spec("flash_attn")
    return {"attn_implementation": "flash_attention_2"} if has_flash and settings.variant == "flat" else {}


def default(settings: Settings) -> dict[str, Any]:
    """Nothing, so bf16 autocast and activation checkpointing; but not bf16 where that would only be a handicap."""
    return {"bf16": False} if settings.slow_bf16 else {}


def tuned(settings: Settings) -> dict[str, Any]:
    """The settings that are not the default already.

    By default its AdamW is fused, its attention is SDPA, its weights are float32, and its only plain loss goes over the
    logits in chunks; on a CPU it does so for every token, on a GPU for supervised ones.
    - bf16: what the run asks for
    - gradient_checkpointing: it recomputes each layer, a third more work, and is on by default
    - padding_free, which asks for max_length None (the rows are cut already): on a CPU transformers builds the mask
      that keeps rows apart from their positions, as the gate shows. TRL's packing would fill rows of fixed length with
      other documents than everyone's batch has, by the same attention
    - use_liger_kernel: kernels for GPUs
    """
    chosen = {"bf16": settings.precision == "bf16", "gradient_checkpointing": False}
    if settings.variant == "flat":
        chosen |= {"padding_free": True, "max_length": None}
    if settings.device == "cuda" and importlib.util.find_spec("liger_kernel"):
        chosen |= {"use_liger_kernel": True}
    return chosen


if __name__ == "__main__":
    main()
