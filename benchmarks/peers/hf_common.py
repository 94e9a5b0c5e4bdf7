"""Shared by the contestants transformers' Trainer and its subclass, TRL's SFTTrainer."""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, TrainerCallback

from benchmarks.peers.protocol import LORA_RANK, Settings, Turns


def same_for_all(settings: Settings) -> dict[str, Any]:
    """Arguments that make the work the same (rows, order, AdamW, learning rate) and write nothing."""
    return {
        "output_dir": settings.output,
        "use_cpu": settings.device == "cpu",
        "per_device_train_batch_size": settings.batch_size,
        "max_steps": settings.steps,
        "learning_rate": settings.lr,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": 0.0,  # no clipping, as for all contestants
        "train_sampling_strategy": "sequential",  # keep the given order
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def load_model(settings: Settings, **loading: Any) -> PreTrainedModel:
    """The model as `from_pretrained` loads it, but without dropout."""
    config = AutoConfig.from_pretrained(settings.model)
    for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout"):
        if hasattr(config, name):
            setattr(config, name, 0.0)
    return AutoModelForCausalLM.from_pretrained(settings.model, config=config, **loading)


def load_tokenizer(settings: Settings) -> Any:
    """The tokenizer, with a pad token."""
    tokenizer = AutoTokenizer.from_pretrained(settings.tokenizer)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def lora(model: PreTrainedModel) -> LoraConfig:
    """LoRA adapters on every linear layer except the head."""
    return LoraConfig(
        task_type="CAUSAL_LM", r=LORA_RANK, lora_alpha=2 * LORA_RANK, lora_dropout=0.0, target_modules="all-linear",
        fan_in_fan_out=model.config.model_type == "gpt2",
    )  # fmt: skip


def counting(trainer: type) -> type:
    """A subclass of the trainer that keeps the loss and token counts of a step for the callback."""

    class Counting(trainer):  # type: ignore[misc]
        def training_step(self, model: Any, inputs: dict[str, Any], *rest: Any, **named: Any) -> torch.Tensor:
            ids, labels, mask = inputs["input_ids"], inputs["labels"], inputs.get("attention_mask")
            self.counts = {
                "real": ids.numel() if mask is None else int(mask.sum()),
                "processed": ids.numel(),
                "supervised": int((labels[:, 1:] != -100).sum()),
            }
            self.step_loss: torch.Tensor = super().training_step(model, inputs, *rest, **named)
            return self.step_loss

    return Counting


class TurnByTurn(TrainerCallback):
    """Times a step from the end of the previous one: batch, forward, backward, optimiser and the trainer's overhead."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.trainer: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Wait for the first turn."""
        self.turns.wait()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Report the step, and wait for the next turn unless it was the last."""
        self.turns.finish(loss=self.trainer.step_loss, **self.trainer.counts)
        if state.global_step < state.max_steps:
            self.turns.wait()


def precision_of(model: PreTrainedModel, args: Any) -> str:
    """The precision of matrix products: `bf16` under autocast or with bf16 weights, else `float32`."""
    return "bf16" if args.bf16 or model.dtype == torch.bfloat16 else "float32"
