from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from lit_sft.models.adapters import causal_lm
from lit_sft.models.backbone import BackboneSettings, build_backbone
from lit_sft.models.loaded import LoadedModel
from tests.conftest import END, IM_END, MODELS


def never_ending(tokenizer: PreTrainedTokenizerFast, context: int) -> torch.nn.Module:
    """A model with random weights that never chooses an end token at temperature 0."""
    torch.manual_seed(1)
    backbone = build_backbone(BackboneSettings(config={**MODELS["gpt2"], "n_positions": context}), tokenizer)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.normal_(std=0.3) if parameter.dim() > 1 else None
        # the embeddings are tied, so these logits are 0; some other one is always higher
        causal_lm(backbone).get_input_embeddings().weight[[END, IM_END]] = 0.0
    return backbone.eval()


@pytest.fixture
def model(tokenizer: PreTrainedTokenizerFast) -> LoadedModel:
    return LoadedModel("tiny", never_ending(tokenizer, 512), tokenizer, "chatml")


@pytest.fixture
def folder(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> str:
    """A model folder with room for very long answers."""
    causal_lm(never_ending(tokenizer, 8192)).save_pretrained(tmp_path / "tiny")
    tokenizer.save_pretrained(tmp_path / "tiny")
    return str(tmp_path / "tiny")
