"""Models on disk: a Hugging Face folder that transformers and peft load as it is."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig

from data_modules.sft_data_module import SFTDataModule
from data_modules.templates import Template
from lit_sft.backbone import causal_lm, is_adapted
from lit_sft.chat_template import jinja_of
from lit_sft.checkpoint_digests import check_intact


def export_model(backbone: nn.Module, folder: Path, data: SFTDataModule, *, merge: bool = False) -> None:
    """Write model (or adapter), tokenizer, chat template and generation settings.

    Args:
        backbone: What was trained.
        folder: Written to; made if needed.
        data: Its tokenizer and template go along: `apply_chat_template` renders the text that was trained. Its ids
            differ from the trained ones only where the tokenizer merges across the borders of a message.
        merge: Merge adapters into the weights; else only the adapter is written. Adapters of a model that began with
            random weights are always merged: without it they are of no use.
    """
    model = _merged(backbone) if is_adapted(backbone) and (merge or not _has_base(backbone)) else backbone
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
    for weights in folder.glob("*.safetensors"):  # written readable by their owner only
        weights.chmod((folder / "lit_sft.json").stat().st_mode)


def read_checkpoint(path: Path, **options: Any) -> dict[str, Any]:
    """A Lightning checkpoint.

    Raises:
        ValueError: If it is not there, or damaged; names the others beside it.
    """
    others = ", ".join(str(other) for other in sorted(path.parent.glob("*.ckpt")) if other != path)
    advice = f"; beside it there is {others}" if others else ""
    if not path.is_file():
        raise ValueError(f"{path}: no such checkpoint{advice}.")
    check_intact(path, advice)
    try:
        saved: dict[str, Any] = torch.load(path, weights_only=True, **options)
    except Exception as error:
        # a broken file ends in any of a dozen exception types
        raise ValueError(f"{path}: damaged, cut short or not a checkpoint ({type(error).__name__}){advice}.") from None
    if not isinstance(saved, dict) or not isinstance(saved.get("state_dict"), dict):
        raise ValueError(f"{path}: no checkpoint of a run: it has no state_dict{advice}.")
    return saved


def load_weights(backbone: nn.Module, checkpoint: Path, *, prefix: str = "backbone.") -> dict[str, float]:
    """Put the weights of a Lightning checkpoint into a backbone.

    Returns:
        The validation figures of these weights, with the `step`; empty if they were saved between validations.

    Raises:
        ValueError: If they are not this model's.
    """
    saved = read_checkpoint(checkpoint, map_location="cpu")
    state = {n.removeprefix(prefix): value for n, value in saved["state_dict"].items() if n.startswith(prefix)}
    missing, unexpected = backbone.load_state_dict(state, strict=False)
    # tied weights have several names, of which one is enough; frozen ones are not saved with adapters
    every = dict(backbone.named_parameters(remove_duplicate=False))
    loaded = {id(every[name]) for name in state if name in every}
    lacking = [
        name
        for name in missing
        if name not in every
        or ((every[name].requires_grad or not is_adapted(backbone)) and id(every[name]) not in loaded)
    ]
    if lacking or unexpected:
        raise ValueError(
            f"{checkpoint}: not a checkpoint of this model ({len(lacking)} weights missing, {len(unexpected)} "
            "unknown). Use the config it was trained with."
        )
    figures: dict[str, float] = saved.get("figures", {})
    return figures


def _merged(backbone: nn.Module) -> nn.Module:
    merged: nn.Module = copy.deepcopy(backbone).merge_and_unload()  # type: ignore[operator]
    return merged


def _has_base(backbone: nn.Module) -> bool:
    """Whether the weights that the adapters adapt lie somewhere to be found."""
    return all(config.base_model_name_or_path for config in backbone.peft_config.values())  # type: ignore[operator]


def _save_tokenizer(folder: Path, data: SFTDataModule) -> None:
    tokenizer = copy.deepcopy(data.tokenizer)
    tokenizer.model_max_length = data.context_length or data.max_length
    template = data.encoder.template
    if isinstance(template, Template):
        tokenizer.chat_template = jinja_of(template, bos=data.encoder.starts_documents)
    tokenizer.save_pretrained(folder)
    settings = {"template": template.name, "end_token": template.end, "max_length": data.max_length}
    (folder / "lit_sft.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")
