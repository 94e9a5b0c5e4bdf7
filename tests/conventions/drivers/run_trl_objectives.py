"""Losses and gradients of TRL's SFTTrainer on a padded batch, by objective. See `tests/conventions/README.md`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer


def run(job: dict, settings: dict) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss and the gradient of every weight."""
    rows = [{name: job[name][index] for name in ("input_ids", "labels")} for index in range(len(job["input_ids"]))]
    config = SFTConfig(
        output_dir=str(Path(job["out"]).parent / "trl"),
        use_cpu=True,
        bf16=False,
        report_to=[],
        gradient_checkpointing=False,
        **settings,
    )
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    trainer = SFTTrainer(model, config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    batch = trainer.data_collator(rows)
    count = (batch["labels"][:, 1:] != -100).sum()
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, batch, num_items_in_batch=count)
    loss.backward()
    return float(loss.detach()), {name: weight.grad for name, weight in trainer.model.named_parameters()}


if __name__ == "__main__":
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.save([run(job, settings) for settings in job["settings"]], job["out"])
