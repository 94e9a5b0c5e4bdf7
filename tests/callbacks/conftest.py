"""Short runs of a tiny model, with any callbacks, on a CPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from data_modules.sft_data_module import SFTDataModule
from lit_sft.models.backbone import BackboneSettings
from lit_sft.training.module import LitCausalLM
from lit_sft.training.optimization import OptimizerSettings
from tests.conftest import MODELS, chat_rows


@dataclass(frozen=True)
class Finished:
    """A run that has ended."""

    trainer: Trainer
    module: LitCausalLM
    data: SFTDataModule
    folder: Path

    def rows(self, file: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / file).read_text(encoding="utf-8").splitlines()]

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: value.detach().clone() for name, value in self.module.backbone.state_dict().items()}


@pytest.fixture
def make_run(
    make_data: Callable[..., SFTDataModule], tmp_path: Path
) -> Callable[..., tuple[Trainer, LitCausalLM, SFTDataModule]]:
    """Build a run of four steps with validations after the second and the fourth; `fit` is left to the test."""

    def _make(
        callbacks: list[Callback],
        *,
        module: type[LitCausalLM] = LitCausalLM,
        dropout: float = 0.0,
        model: dict[str, Any] | None = None,
        lr: float = 1e-3,
        data: dict[str, Any] | None = None,
        folder: str = "run",
        **trainer: Any,
    ) -> tuple[Trainer, LitCausalLM, SFTDataModule]:
        seed_everything(3, verbose=False)
        rows = chat_rows(24)
        made = make_data(rows, **{"val_fraction": 0.3, "batch_size": 3, "context_length": 512} | (data or {}))
        settings = BackboneSettings(config={**MODELS["gpt2"], **(model or {})}, dropout=dropout)
        built = module(settings, OptimizerSettings(lr=lr, schedule="constant"))
        defaults: dict[str, Any] = {
            "max_steps": 4, "val_check_interval": 2, "num_sanity_val_steps": -1, "accelerator": "cpu",
            "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
            "enable_model_summary": False, "use_distributed_sampler": False, "gradient_clip_val": 1.0,
            "log_every_n_steps": 1, "default_root_dir": str(tmp_path / folder),
        }  # fmt: skip
        return Trainer(callbacks=callbacks, **defaults | trainer), built, made

    return _make


@pytest.fixture
def fit(make_run: Callable[..., tuple[Trainer, LitCausalLM, SFTDataModule]]) -> Callable[..., Finished]:
    """Build a run as `make_run` does, and fit."""

    def _fit(callbacks: list[Callback], **settings: Any) -> Finished:
        trainer, module, data = make_run(callbacks, **settings)
        trainer.fit(module, datamodule=data)
        return Finished(trainer, module, data, Path(trainer.default_root_dir))

    return _fit
