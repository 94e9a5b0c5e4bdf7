"""Small training runs for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import nn
from transformers import PreTrainedTokenizerFast

from data_modules.batching.batch import collate
from data_modules.rendering.masking import MASKS
from data_modules.sft_data_module import SFTDataModule
from lit_sft.models.adapters import LoraSettings
from lit_sft.models.backbone import BackboneSettings, build_backbone
from lit_sft.models.loss import token_nll
from lit_sft.training.module import LitCausalLM
from lit_sft.training.optimization import OptimizerSettings
from tests.conftest import MODELS


def make_module(
    name: str = "gpt2",
    *,
    seed: int = 0,
    tuning: str = "full",
    dropout: float = 0.0,
    name_of_optimizer: str = "adamw",
    backbone: dict[str, Any] | None = None,
    **optimizer: Any,
) -> LitCausalLM:
    """An unbuilt module with random weights that depend on the seed."""
    torch.manual_seed(seed)
    chosen: dict[str, Any] = {"config": MODELS[name], "tuning": tuning, "dropout": dropout} | (backbone or {})
    settings = {"lr": 1e-3, "schedule": "constant", "name": name_of_optimizer} | optimizer
    return LitCausalLM(BackboneSettings(lora=LoraSettings(rank=2), **chosen), OptimizerSettings(**settings))  # type: ignore[arg-type]


def save_base(name: str, folder: Path, tokenizer: PreTrainedTokenizerFast) -> str:
    """Save a model with random weights, always the same, and return its folder."""
    torch.manual_seed(0)
    base: Any = build_backbone(BackboneSettings(config=MODELS[name]), tokenizer)
    base.save_pretrained(folder)
    return str(folder)


def whole_nll(model: nn.Module, data: SFTDataModule, **options: Any) -> torch.Tensor:
    """The nats of all tokens of the validation examples."""
    batch = collate(list(data.stores["val"]), mask=MASKS["whole_sequence"], score_all=True, **options)
    return token_nll(model.eval(), batch)


def fit_backbone(
    settings: BackboneSettings, data: SFTDataModule, folder: Path, steps: int = 3, **more: Any
) -> LitCausalLM:
    """Train a few steps at a constant, high learning rate, always from the same seed."""
    torch.manual_seed(0)
    module = LitCausalLM(settings, OptimizerSettings(lr=1e-2, schedule="constant"))
    make_trainer(folder, max_steps=steps).fit(module, datamodule=data, weights_only=True, **more)
    return module


def make_trainer(folder: Path, **settings: Any) -> Trainer:
    """A silent trainer on the CPU."""
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": -1,
        "use_distributed_sampler": False,
        "default_root_dir": str(folder),
    }
    return Trainer(**(defaults | settings))


def train(data: SFTDataModule, folder: Path, module: LitCausalLM | None = None, **settings: Any) -> LitCausalLM:
    """Fit a module on data and return it."""
    module = module or make_module()
    make_trainer(folder, **settings).fit(module, datamodule=data)
    return module
