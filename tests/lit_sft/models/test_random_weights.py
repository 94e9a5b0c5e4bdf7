"""Weights before the first step: their spread, the loss they give, and vocabularies that are padded."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from data_modules.errors import UserError
from data_modules.sft_data_module import SFTDataModule
from lit_sft.models.adapters import causal_lm
from lit_sft.models.backbone import BackboneSettings, build_backbone, load_config, vocabulary_size
from lit_sft.models.generation import GenerationSettings, generate
from lit_sft.models.saving import export_model
from tests.conftest import END, MODELS, chat_rows
from tests.training import make_module, train

MakeData = Callable[..., SFTDataModule]

WIDE: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 256, "n_head": 4, "n_layer": 4},
    "qwen2": {"hidden_size": 256, "num_hidden_layers": 4},
    "llama": {"hidden_size": 256, "num_hidden_layers": 4},
}


def build(name: str, tokenizer: PreTrainedTokenizerFast, multiple: int | None = None) -> PreTrainedModel:
    torch.manual_seed(0)
    settings = BackboneSettings(config=MODELS[name] | WIDE[name], pad_vocab_to_multiple_of=multiple)
    return causal_lm(build_backbone(settings, tokenizer))


def test_gpt2s_residual_projections_start_smaller(tokenizer: PreTrainedTokenizerFast) -> None:
    """Radford et al. 2019: they are divided by the square root of the number of residual additions, two per layer."""
    model = build("gpt2", tokenizer)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            assert not parameter.any(), name
        elif ".ln_" in name:
            assert torch.equal(parameter, torch.ones_like(parameter)), name
        else:
            expected = 0.02 / math.sqrt(2 * 4) if ".c_proj." in name else 0.02
            assert parameter.detach().std().item() == pytest.approx(expected, rel=0.02), name


@pytest.mark.parametrize("name", ["qwen2", "llama"])
def test_matrices_of_other_models_all_start_alike(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    for key, parameter in build(name, tokenizer).named_parameters():
        if parameter.dim() > 1:
            assert parameter.detach().std().item() == pytest.approx(0.02, rel=0.02), key


@pytest.mark.parametrize("multiple", [None, 50304])
@pytest.mark.parametrize("name", list(MODELS))
def test_loss_of_random_weights_is_the_logarithm_of_the_vocabulary(
    name: str, multiple: int | None, tokenizer: PreTrainedTokenizerFast
) -> None:
    model = build(name, tokenizer, multiple).eval()
    ids = torch.randint(256, (4, 128), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = model(input_ids=ids).logits
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert float(loss) == pytest.approx(math.log(multiple or 259), rel=0.02)


def test_vocabulary_is_rounded_up(tokenizer: PreTrainedTokenizerFast) -> None:
    assert [build("gpt2", tokenizer, multiple).config.vocab_size for multiple in (None, 1, 7, 128)] == [
        259, 259, 259, 384,
    ]  # fmt: skip


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_padded_entries_are_never_generated(temperature: float, tokenizer: PreTrainedTokenizerFast) -> None:
    model = build("llama", tokenizer, 128)  # its head is not tied
    with torch.no_grad():
        model.get_output_embeddings().weight[259:] *= 1000
    assert int(model(input_ids=torch.tensor([[1, 2]])).logits[0, -1].argmax()) >= 259
    settings = GenerationSettings(max_new_tokens=30, temperature=temperature)
    (answer,) = generate(model, [[1, 2]], tokenizer=tokenizer, end_token_id=END, settings=settings)
    assert answer.text  # padded entries have none


def test_padded_model_trains_and_its_export_loads(make_data: MakeData, tmp_path: Path) -> None:
    data = make_data(chat_rows(20), val_fraction=0.2, template="plain")
    module = make_module(backbone={"pad_vocab_to_multiple_of": 128})
    train(data, tmp_path, module)
    export_model(module.backbone, tmp_path / "model", data)
    loaded, found = AutoModelForCausalLM.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not any(found.values())
    assert loaded.config.vocab_size == 384
    ids = torch.tensor([[65, 66, 67]])
    module.backbone.eval()
    torch.testing.assert_close(loaded(input_ids=ids).logits, module.backbone(input_ids=ids).logits)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"config": MODELS["gpt2"], "pad_vocab_to_multiple_of": 0}, "pad_vocab_to_multiple_of 0: expected at least 1"),
        ({"pretrained": "gpt2", "pad_vocab_to_multiple_of": 128}, "128: pretrained weights keep their vocabulary"),
    ],
)
def test_impossible_padding_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(BackboneSettings(**settings))


@pytest.mark.parametrize(("wanted", "multiple"), [(100, None), (259, 128), (384, None)])
def test_a_vocabulary_that_does_not_follow_from_the_tokenizer_is_refused(
    tokenizer: PreTrainedTokenizerFast, wanted: int, multiple: int | None
) -> None:
    settings = BackboneSettings(config=MODELS["gpt2"] | {"vocab_size": wanted}, pad_vocab_to_multiple_of=multiple)
    with pytest.raises(
        UserError, match=rf"vocab_size is {wanted}, but it follows from the tokenizer: (259|384) entries"
    ):
        vocabulary_size(settings, tokenizer)


def test_a_vocabulary_may_be_given_if_it_is_right(tokenizer: PreTrainedTokenizerFast) -> None:
    given = BackboneSettings(config=MODELS["gpt2"] | {"vocab_size": 384}, pad_vocab_to_multiple_of=128)
    assert vocabulary_size(given, tokenizer) == 384


def test_a_run_is_not_a_model_but_has_one(tmp_path: Path) -> None:
    (tmp_path / "version_0" / "model").mkdir(parents=True)
    (tmp_path / "version_0" / "model" / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"version_0: this is a run; its model is .*version_0/model\.$"):
        load_config(BackboneSettings(pretrained=str(tmp_path / "version_0")))
