"""Warns if a model may never learn to stop, because its end token cannot be trained."""

from __future__ import annotations

import warnings

from torch import nn

from data_modules.errors import UserNotice
from lit_sft.models.adapters import causal_lm
from lit_sft.models.backbone import BackboneSettings


def warn_of_frozen_end(backbone: nn.Module, settings: BackboneSettings, end: str | None, end_token_id: int) -> None:
    """Warn if answers end with a token that is new to the model and whose embedding LoRA keeps frozen.

    Args:
        backbone: The model.
        settings: Its settings.
        end: Text of the token that ends answers.
        end_token_id: The same token.
    """
    model = causal_lm(backbone)
    ends = (model.config.eos_token_id, model.generation_config.eos_token_id)
    known = [index for end_id in ends for index in (end_id if isinstance(end_id, list) else [end_id])]
    weights = model.get_input_embeddings().named_parameters()
    is_frozen = not any(weight.requires_grad for name, weight in weights if "trainable_tokens" not in name)
    if end in settings.new_tokens:
        return  # LoRA trains its rows
    if settings.tuning == "lora" and end_token_id not in known and is_frozen:
        embedding = next(name for name, m in model.named_modules() if m is model.get_input_embeddings())
        warnings.warn(
            f"answers end with {end!r}, which is not this model's own end token, and LoRA keeps its embedding frozen: "
            "the model may never learn to stop. Use a template that ends with the model's own token, or "
            f"`--model.backbone.lora.modules_to_save '[{embedding.rpartition('.')[2]}]'`.",
            UserNotice,
            stacklevel=3,
        )
