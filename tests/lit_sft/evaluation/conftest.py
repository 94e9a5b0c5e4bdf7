"""Models of a few thousand random weights, ready to be scored, and an endpoint to judge them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from lit_sft.models.backbone import BackboneSettings, build_backbone
from lit_sft.models.loaded import LoadedModel
from tests.conftest import MODELS
from tests.lit_sft.evaluation.fake_endpoint import Endpoint

MakeModel = Callable[..., LoadedModel]


@pytest.fixture
def make_model(tokenizer: PreTrainedTokenizerFast) -> MakeModel:
    """A model from MODELS with weights determined by a seed."""

    def _make(shape: str = "gpt2", seed: int = 0, token_budget: int = 300, template: str = "plain") -> LoadedModel:
        torch.manual_seed(seed)
        backbone = build_backbone(BackboneSettings(config=MODELS[shape]), tokenizer)
        for parameter in backbone.parameters():
            parameter.data *= 3  # far enough from uniform that rules and models differ
        return LoadedModel(f"{shape} {seed}", backbone.eval(), tokenizer, template, token_budget)  # type: ignore[arg-type]

    return _make


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setenv("OPENAI_API_KEY", "a-key")
    made = Endpoint()
    yield made
    made.server.shutdown()
    made.server.server_close()
