"""Loss, gradients and rewards of TRL's KTOTrainer on a padded batch. See `tests/conventions/README.md`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.trainer.kto_config import KTOConfig
from trl.trainer.kto_trainer import KTOTrainer


def run(job: dict, settings: dict) -> tuple[float, dict[str, torch.Tensor], dict[str, float]]:
    """The loss, the gradient of every weight and the logged rewards."""
    config = KTOConfig(
        output_dir=str(Path(job["out"]).parent / "trl"),
        use_cpu=True,
        bf16=False,
        report_to=[],
        gradient_checkpointing=False,
        max_length=None,
        loss_type="apo_zero_unpaired",
        **settings,
    )
    model, reference = (
        AutoModelForCausalLM.from_pretrained(job[name], dtype=torch.float32) for name in ("model", "reference")
    )
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    rows = Dataset.from_list([{"prompt": "a", "completion": "b", "label": label} for label in (True, False)])
    trainer = KTOTrainer(model, reference, args=config, train_dataset=rows, processing_class=tokenizer)
    batch = trainer.data_collator(job["rows"])  # the ids are given
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    logged = {name: float(torch.tensor(values[-1])) for name, values in trainer._metrics["train"].items() if values}
    return float(loss.detach()), {name: weight.grad for name, weight in trainer.model.named_parameters()}, logged


if __name__ == "__main__":
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.save([run(job, settings) for settings in job["settings"]], job["out"])
