"""The model as it was before training, which some objectives compare the trained one with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import nn

from lit_sft.models.adapters import causal_lm, is_adapted
from lit_sft.models.generation import evaluating


def keep_reference(backbone: nn.Module) -> None:
    """Keep what `reference_model` needs, once. Call it before training and before a checkpoint is loaded.

    With adapters nothing is kept: they are switched off. A model whose own weights are trained keeps a frozen copy,
    which takes as much memory as the weights.
    """
    if not is_adapted(backbone) and not hasattr(backbone, "reference"):
        copy = deepcopy(backbone).requires_grad_(False).eval()
        backbone.reference = (copy,)  # type: ignore[assignment]  # not a submodule: it is neither saved nor optimised


def has_reference(backbone: nn.Module) -> bool:
    """Whether `reference_model` can be used."""
    return is_adapted(backbone) or hasattr(backbone, "reference")


@contextmanager
def reference_model(backbone: nn.Module) -> Iterator[nn.Module]:
    """The backbone as it was before training, in evaluation mode and without gradients.

    Args:
        backbone: With adapters; or after `keep_reference`.
    """
    with torch.no_grad():
        if is_adapted(backbone):
            with backbone.disable_adapter(), evaluating(backbone):  # type: ignore[operator]
                yield backbone
        else:
            (copy,) = backbone.reference  # type: ignore[misc]
            like = causal_lm(backbone).get_input_embeddings().weight
            yield copy.to(like.device, like.dtype)
