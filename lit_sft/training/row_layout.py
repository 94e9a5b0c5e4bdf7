"""How a model takes documents: several in one row or not, and what they have in common once or not."""

from __future__ import annotations

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from data_modules.errors import UserError
from lit_sft.models.adapters import causal_lm
from lit_sft.models.architectures import special_attention
from lit_sft.training.data import TrainingData
from lit_sft.training.prefix_sharing import splits_that_share


def row_layout(
    backbone: nn.Module, data: TrainingData, trainer: Trainer, *, is_noisy: bool = False
) -> tuple[bool, frozenset[str]]:
    """Whether a row may hold several documents, and the splits that compute once what these have in common.

    Says so where the model prevents it.

    Args:
        backbone: The model, with or without adapters.
        data: The data module of the run.
        trainer: The trainer of the run.
        is_noisy: Whether every document gets noise of its own in training.

    Raises:
        UserError: With FSDP2, if every document needs a row of its own and the data cannot be padded.
    """
    model = causal_lm(backbone)
    if (reason := special_attention(model)) is None:
        return True, splits_that_share(backbone, data, trainer.state.fn, is_noisy=is_noisy)
    kind, strategy = model.config.model_type, trainer.strategy
    # text is packed nevertheless; its rows are taken apart in as many passes as they need, which differ between ranks
    if isinstance(strategy, ModelParallelStrategy) and not hasattr(data, "share_prefixes"):
        raise UserError(
            f"--trainer.strategy {type(strategy).__name__} with a {kind} model and text: every document needs a row of "
            "its own, which FSDP2 does not support here. Use one device or DDP: `--config configs/overlays/ddp.yaml`."
        )
    rank_zero_info(
        f"{kind}: every document is computed in a row of its own, because {reason}. This is correct, but slower than "
        "packing (docs/models.md)."
    )
    return False, frozenset()
