"""Whether a run computes once what documents have in common at their beginning."""

from __future__ import annotations

from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from lit_sft.models.adapters import causal_lm
from lit_sft.models.attention import has_document_attention, has_dropout
from lit_sft.training.data import TrainingData


def can_share_prefixes(backbone: nn.Module, data: TrainingData) -> bool:
    """Whether the model computes the same for documents with a common beginning, together as apart.

    Says so if dropout prevents it, although the data asks for it.

    Args:
        backbone: The model, with or without adapters.
        data: The data module of the run.
    """
    model = causal_lm(backbone)
    if not has_document_attention(model):
        return False
    if not has_dropout(model):
        return True
    if getattr(data, "share_prefixes", False):
        rank_zero_info(
            "dropout differs between documents, so what they have in common at their beginning is computed for each: "
            "`--model.backbone.dropout 0 --model.backbone.lora.dropout 0` computes it once."
        )
    return False
