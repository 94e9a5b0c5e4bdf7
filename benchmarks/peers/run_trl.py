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
    """Train one step per turn."""
    turns = Turns()
    settings = turns.settings
    chosen = default(settings) if settings.variant == "default" else tuned(settings)
    callback = TurnByTurn(turns)
    # SFTTrainer loads float32 if given a name instead of a model
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
    """Flash attention for packed rows if it is installed, as TRL's documentation recommends."""
    has_flash = settings.device == "cuda" and importlib.util.find_spec("flash_attn")
    return {"attn_implementation": "flash_attention_2"} if has_flash and settings.variant == "flat" else {}


def default(settings: Settings) -> dict[str, Any]:
    """TRL's defaults (bf16 autocast, activation checkpointing), but without bf16 on CPUs where it is slower."""
    return {"bf16": False} if settings.slow_bf16 else {}


def tuned(settings: Settings) -> dict[str, Any]:
    """The settings that differ from the defaults.

    The defaults are already fused AdamW, SDPA attention and float32 weights. Its plain loss processes the logits in
    chunks: all tokens on a CPU, supervised tokens only on a GPU.
    - bf16: if the run asks for it
    - no gradient_checkpointing: it is on by default and recomputes each layer, a third more work
    - padding_free, which requires max_length None (the rows are already truncated): on a CPU, transformers builds the
      block-diagonal mask from the positions, as the loss check confirms. TRL's packing uses the same attention, but
      would fill fixed-length rows, so that a step would contain different documents from the other trainers'
    - use_liger_kernel: on a GPU
    """
    chosen = {"bf16": settings.precision == "bf16", "gradient_checkpointing": False}
    if settings.variant == "flat":
        chosen |= {"padding_free": True, "max_length": None}
    if settings.device == "cuda" and importlib.util.find_spec("liger_kernel"):
        chosen |= {"use_liger_kernel": True}
    return chosen


if __name__ == "__main__":
    main()
