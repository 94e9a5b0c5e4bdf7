"""Whether a run computes once what documents have in common at their beginning."""

from __future__ import annotations

import warnings

from torch import nn

from data_modules.errors import UserNotice
from lit_sft.models.adapters import causal_lm
from lit_sft.models.attention import has_document_attention, has_dropout
from lit_sft.training.data import TrainingData


def can_share_prefixes(backbone: nn.Module, data: TrainingData) -> bool:
    """Whether the model computes the same for documents with a common beginning, together as apart.

    Warns if dropout keeps it from doing so, although the data asks for it.

    Args:
        backbone: The model, with or without adapters.
        data: The data module of the run.
    """
    model = causal_lm(backbone)
    if not has_document_attention(model):
        return False
    if not has_dropout(model):
        return True
    if not getattr(data, "share_prefixes", False):
        return False
    warnings.warn(
        "dropout: what documents have in common at their beginning is computed for each of them, because dropout "
        "differs between them. `--model.backbone.dropout 0 --model.backbone.lora.dropout 0` computes it once; "
        "`--data.share_prefixes false` hides this notice.",
        UserNotice,
        stacklevel=3,
    )
    return False
