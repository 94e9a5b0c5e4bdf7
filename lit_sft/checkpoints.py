"""Models on disk: a Hugging Face folder that transformers and peft load as it is."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import torch
from torch import nn
from transformers import GenerationConfig

from data_modules.sft_data_module import SFTDataModule
from data_modules.templates import Template
from lit_sft.backbone import causal_lm, is_adapted
from lit_sft.chat_template import jinja_of


def export_model(backbone: nn.Module, folder: Path, data: SFTDataModule, *, merge: bool = False) -> None:
    """Write model (or adapter), tokenizer, chat template and generation settings.

    Args:
        backbone: What was trained.
        folder: Written to; made if needed.
        data: Its tokenizer and template go along, so that `apply_chat_template` renders what was trained.
        merge: Merge adapters into the weights; else only the adapter is written.
    """
    model = _merged(backbone) if merge and is_adapted(backbone) else backbone
    generation = GenerationConfig(eos_token_id=data.end_token_id, pad_token_id=data.pad_token_id, do_sample=False)
    inner = causal_lm(model)
    defaults, inner.generation_config = inner.generation_config, generation
    inner.config.pad_token_id = data.pad_token_id
    try:
        model.save_pretrained(folder)  # type: ignore[operator]
    finally:
        inner.generation_config, inner.config.pad_token_id = defaults, None
    generation.save_pretrained(folder)
    _save_tokenizer(folder, data)


def load_weights(backbone: nn.Module, checkpoint: Path, *, prefix: str = "backbone.") -> None:
    """Put the weights of a Lightning checkpoint into a backbone.

    Raises:
        ValueError: If they are not this model's.
    """
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    state = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    missing, unexpected = backbone.load_state_dict(state, strict=False)
    frozen = {name for name, p in backbone.named_parameters() if not p.requires_grad} if is_adapted(backbone) else set()
    tied = set(getattr(causal_lm(backbone), "_tied_weights_keys", None) or ())
    lacking = [name for name in missing if name not in frozen and not any(name.endswith(key) for key in tied)]
    if lacking or unexpected:
        raise ValueError(
            f"{checkpoint}: not a checkpoint of this model ({len(lacking)} weights missing, {len(unexpected)} "
            "unknown). Use the config it was trained with."
        )


def _merged(backbone: nn.Module) -> nn.Module:
    merged: nn.Module = copy.deepcopy(backbone).merge_and_unload()  # type: ignore[operator]
    return merged


def _save_tokenizer(folder: Path, data: SFTDataModule) -> None:
    tokenizer = copy.deepcopy(data.tokenizer)
    tokenizer.model_max_length = data.context_length or data.max_length
    template = data.encoder.template
    if isinstance(template, Template):
        tokenizer.chat_template = jinja_of(template)
    tokenizer.save_pretrained(folder)
    settings = {"template": template.name, "end_token": template.end, "max_length": data.max_length}
    (folder / "lit_sft.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")
