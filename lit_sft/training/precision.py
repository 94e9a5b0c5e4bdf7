"""Checks whether a numerical precision works on this machine."""

from __future__ import annotations

import warnings

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import nn

from data_modules.errors import UserError, UserNotice
from lit_sft.models.backbone import BackboneSettings, narrow_frozen_layers

AUTOCAST_DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Dtypes of Lightning's mixed precisions."""

_SMALL_LR = 1e-4


def check_precision(precision: str, *, on_cpu: bool) -> None:
    """Reject fp16 on a CPU, and warn about bf16 on a CPU that emulates it.

    Args:
        precision: Lightning's name, such as `16-mixed`.
        on_cpu: Whether the model will run on a CPU.

    Raises:
        UserError: For fp16 on a CPU.
    """
    if on_cpu and precision in ("16-mixed", "16-true", "16", "transformers-engine-float16"):
        raise UserError(
            f"--trainer.precision {precision}: fp16 on a CPU is about 200 times slower than bf16, and Lightning would "
            "silently train in bf16 instead. Use `--trainer.precision bf16-mixed` (or 32-true), or a GPU."
        )
    if on_cpu and precision.startswith("bf16") and not _has_bf16_products():
        warnings.warn(
            f"trainer.precision {precision}: this CPU cannot multiply in bfloat16 (no AVX-512 or AMX), so bf16 is "
            "about 10 to 200 times slower than float32. Use `--trainer.precision 32-true`.",
            UserNotice,
            stacklevel=2,
        )


def warn_of_lost_updates(precision: str, lr: float) -> None:
    """Warn if half-precision weights are too coarse for the optimiser's updates.

    A bfloat16 weight of 0.02 changes in steps of about 1e-4; AdamW's update is about `lr`. At 1e-5 only 15 % of the
    weights of a fresh model change at all in ten steps; in float32 all of them do.
    """
    if precision == "16-true":
        warnings.warn(
            "trainer.precision 16-true: fp16 weights without a loss scale overflow and lose small updates. Use "
            "16-mixed, which keeps float32 weights.",
            UserNotice,
            stacklevel=2,
        )
    if precision == "bf16-true" and lr < _SMALL_LR:
        warnings.warn(
            f"trainer.precision bf16-true with learning rate {lr:g}: most updates are smaller than the spacing of "
            "bfloat16 weights and are rounded away. Use bf16-mixed, which keeps float32 weights.",
            UserNotice,
            stacklevel=2,
        )


def narrow_where_lossless(backbone: nn.Module, settings: BackboneSettings, trainer: Trainer) -> None:
    """Store frozen layers in half precision where nothing is lost: the base is on disk and nothing is sharded."""
    dtype = AUTOCAST_DTYPES.get(str(trainer.precision))
    lora = settings.adapters
    keeps_base = lora is not None and settings.pretrained is not None and not (lora.dora or lora.changes_base)
    if dtype is not None and keeps_base and isinstance(trainer.strategy, (SingleDeviceStrategy, DDPStrategy)):
        narrow_frozen_layers(backbone, dtype)


def _has_bf16_products() -> bool:
    """Whether torch can multiply matrices in bfloat16 on this CPU; True if it cannot tell."""
    is_supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return is_supported is None or bool(is_supported())
