"""NEFTune: uniform noise on the embeddings of every document while training.

Source: Jain et al., NEFTune: Noisy Embeddings Improve Instruction Finetuning, arXiv 2310.05914.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from data_modules.batching.batch import Batch
from lit_sft.models.adapters import causal_lm


@contextmanager
def noisy_embeddings(backbone: nn.Module, batch: Batch, alpha: float) -> Iterator[None]:
    """Add noise to the embeddings of a batch, from torch's default random generator.

    Every value of a document of L tokens gets its own, uniform between -a and a with a = alpha / sqrt(L * D). It is
    drawn document by document, so that packed and padded rows get the same. Passes without gradients get none: those of
    a reference model.

    Args:
        backbone: A causal language model, with or without adapters.
        batch: The only batch that the model may read meanwhile.
        alpha: The magnitude.
    """
    embeddings = causal_lm(backbone).get_input_embeddings()

    def _add(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output + _noise(batch, output, alpha) if torch.is_grad_enabled() else output

    handle = embeddings.register_forward_hook(_add)
    try:
        yield
    finally:
        handle.remove()


def _noise(batch: Batch, embeddings: Tensor, alpha: float) -> Tensor:
    """The noise of a batch, (B, T, D) like the embeddings; 0 on padding."""
    width, device = embeddings.shape[-1], embeddings.device
    lengths = torch.tensor(batch.lengths, device=device)
    drawn = torch.empty(sum(batch.lengths), width, device=device).uniform_(-1, 1)
    dtype = torch.promote_types(embeddings.dtype, torch.float32)
    magnitudes = (alpha / (lengths * width).to(dtype).sqrt()).repeat_interleave(lengths, output_size=len(drawn))
    noise = (drawn * magnitudes.unsqueeze(1)).to(embeddings.dtype)
    if batch.boundaries is not None:
        return noise.view_as(embeddings)
    places = torch.arange(embeddings.shape[1], device=device) < lengths.unsqueeze(1)
    padded = torch.zeros_like(embeddings)
    padded[places] = noise
    return padded
