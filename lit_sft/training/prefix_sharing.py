"""Which splits of a run compute once what documents have in common at their beginning."""

from __future__ import annotations

from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from lit_sft.models.adapters import causal_lm
from lit_sft.models.architectures import has_dropout
from lit_sft.models.attention import can_share_prefixes, has_document_attention
from lit_sft.training.data import TrainingData


def splits_that_share(
    backbone: nn.Module, data: TrainingData, stage: TrainerFn | None, *, is_noisy: bool = False
) -> frozenset[str]:
    """The splits for which the model computes the same for documents with a common beginning, together as apart.

    Says so if the model prevents it, although the data asks for it.

    Args:
        backbone: The model, with or without adapters.
        data: The data module of the run.
        stage: What the trainer does.
        is_noisy: Whether every document gets noise of its own in training.
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
    if has_dropout(model):
        cause, way_out = "dropout", "--model.backbone.dropout 0 --model.backbone.lora.dropout 0"
    elif is_noisy:
        cause, way_out = "NEFTune's noise", "--model.objective.neftune_alpha 0"
    else:
        return frozenset({"train", "val", "test"})
    if is_asked and stage == TrainerFn.FITTING:
        rank_zero_info(
            f"{cause} differs between documents, so in training, what they have in common at their beginning is "
            f"computed for each: `{way_out}` computes it once."
        )
    return frozenset({"val", "test"})
