"""What a numerical precision can and cannot do on the machine at hand."""

from __future__ import annotations

import warnings

import torch

from data_modules.errors import UserError

AUTOCAST_DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Of Lightning's mixed precisions."""

_SMALL_LR = 1e-4


def check_precision(precision: str, *, on_cpu: bool) -> None:
    """Refuse fp16 where it cannot be used, and warn of bf16 where it is slow.

    Args:
        precision: Lightning's name, such as `16-mixed`.
        on_cpu: Whether the model will run on a CPU.

    Raises:
        UserError: For fp16 on a CPU.
    """
    if on_cpu and precision in ("16-mixed", "16-true", "16", "transformers-engine-float16"):
        raise UserError(
            f"--trainer.precision {precision}: fp16 on a CPU is some 200 times slower than bf16, and Lightning would "
            "train in bf16 instead without asking. Use `--trainer.precision bf16-mixed` (or 32-true), or a GPU."
        )
    if on_cpu and precision.startswith("bf16") and not _has_bf16_products():
        warnings.warn(
            f"trainer.precision {precision}: this processor cannot multiply in bfloat16 (no AVX-512 or AMX), which "
            "makes it some 10 to 200 times slower than float32. Use `--trainer.precision 32-true`.",
            stacklevel=2,
        )


def warn_of_lost_updates(precision: str, lr: float) -> None:
    """Warn when half-precision weights cannot take up the updates of the optimiser.

    A bfloat16 weight of 0.02 changes in steps of about 1e-4; AdamW's update is about `lr`. At 1e-5 some 15 % of the
    weights of a fresh model change at all in ten steps, against all of them in float32.
    """
    if precision == "16-true":
        warnings.warn(
            "trainer.precision 16-true: fp16 weights without a loss scale overflow and lose small updates. Use "
            "16-mixed, which keeps float32 weights.",
            stacklevel=2,
        )
    if precision == "bf16-true" and lr < _SMALL_LR:
        warnings.warn(
            f"trainer.precision bf16-true with learning rate {lr:g}: most updates are smaller than the spacing of "
            "bfloat16 weights and are rounded away. Use bf16-mixed, which keeps float32 weights.",
            stacklevel=2,
        )


def _has_bf16_products() -> bool:
    """Whether torch has a matrix product in bfloat16 for this CPU. Where it cannot tell: yes."""
    is_supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return is_supported is None or bool(is_supported())
