"""Which splits of a run compute once what documents have in common at their beginning."""

from __future__ import annotations

from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from lit_sft.models.adapters import causal_lm
from lit_sft.models.attention import can_share_prefixes, has_document_attention, has_dropout
from lit_sft.training.data import TrainingData


def splits_that_share(backbone: nn.Module, data: TrainingData, stage: TrainerFn | None) -> frozenset[str]:
    """The splits for which the model computes the same for documents with a common beginning, together as apart.

    Says so if the model prevents it, although the data asks for it.

    Args:
        backbone: The model, with or without adapters.
        data: The data module of the run.
        stage: What the trainer does.
    """
    model = causal_lm(backbone)
    is_asked = getattr(data, "share_prefixes", False)
    if not can_share_prefixes(model):
        if is_asked and has_document_attention(model):
            rank_zero_info(
                "the model's rotary embeddings depend on a document's length (longrope), so what documents have in "
                "common at their beginning is computed for each."
            )
        return frozenset()
    if not has_dropout(model):
        return frozenset({"train", "val", "test"})
    if is_asked and stage == TrainerFn.FITTING:
        rank_zero_info(
            "dropout differs between documents, so in training, what they have in common at their beginning is "
            "computed for each: `--model.backbone.dropout 0 --model.backbone.lora.dropout 0` computes it once."
        )
    return frozenset({"val", "test"})
