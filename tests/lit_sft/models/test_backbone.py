from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from data_modules.batching.batch import collate
from data_modules.batching.text_batches import collate_texts
from data_modules.encoding.text_store import TextSequence
from data_modules.rendering.masking import MASKS
from data_modules.sft_data_module import SFTDataModule
from lit_sft.models.adapters import LoraSettings, causal_lm
from lit_sft.models.backbone import BackboneSettings, build_backbone, compile_layers, context_length
from lit_sft.models.generation import generate
from lit_sft.models.loss import supervised_loss
from tests.conftest import MODELS, chat_rows

MakeData = Callable[..., SFTDataModule]


def lora(name: str, **settings: Any) -> BackboneSettings:
    return BackboneSettings(config=MODELS[name], tuning="lora", lora=LoraSettings(**settings))


def trainable(model: torch.nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("name", MODELS)
def test_random_weights_depend_on_the_seed_alone(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    def weights(draws: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(3)
        torch.rand(draws)
        before = torch.get_rng_state()
        model = build_backbone(BackboneSettings(config=MODELS[name]), tokenizer)
        assert torch.equal(torch.get_rng_state(), before)
        return model.state_dict()

    first, second = weights(0), weights(5)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_vocabulary_pad_and_end_come_from_the_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    model = causal_lm(build_backbone(BackboneSettings(config=MODELS["gpt2"]), tokenizer))
    assert model.config.vocab_size == 259
    assert model.config.eos_token_id == tokenizer.eos_token_id == 256


@pytest.mark.parametrize("name", MODELS)
def test_lora_on_all_linear_layers_trains_adapters_only_and_starts_as_the_model(
    name: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    torch.manual_seed(0)
    full = build_backbone(BackboneSettings(config=MODELS[name]), tokenizer).eval()
    torch.manual_seed(0)
    adapted = build_backbone(lora(name, rank=2), tokenizer).eval()
    names = trainable(adapted)
    assert names
    assert all("lora_" in parameter for parameter in names)
    layers = {"gpt2": 4, "qwen2": 7, "llama": 7}[name] * 2
    assert len(names) == 2 * layers
    assert not any("lm_head" in parameter for parameter in names)
    ids = torch.tensor([[1, 2, 3]])
    torch.testing.assert_close(adapted(input_ids=ids).logits, full(input_ids=ids).logits)


@pytest.mark.parametrize(("rslora", "dora"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("name", MODELS)
def test_merged_weights_are_the_initial_ones_plus_the_scaled_product(
    name: str, rslora: bool, dora: bool, tokenizer: PreTrainedTokenizerFast
) -> None:
    torch.manual_seed(0)
    adapted = build_backbone(lora(name, rank=4, alpha=6, rslora=rslora, dora=dora), tokenizer).eval()
    for parameter_name, parameter in adapted.named_parameters():
        if "lora_B" in parameter_name:
            torch.nn.init.normal_(parameter, std=0.1)
    ids = torch.tensor([[5, 6, 7, 8]])
    before = adapted(input_ids=ids).logits
    if not dora:
        layer = next(m for m in adapted.modules() if hasattr(m, "lora_A") and m.lora_A)
        scale = 6 / 4**0.5 if rslora else 6 / 4
        product = layer.lora_B["default"].weight @ layer.lora_A["default"].weight * scale
        expected = layer.base_layer.weight + (product.T if name == "gpt2" else product)
    merged = adapted.merge_and_unload()
    torch.testing.assert_close(merged(input_ids=ids).logits, before, rtol=1e-4, atol=1e-5)
    if not dora:
        assert any(torch.allclose(p, expected, atol=1e-6) for p in merged.parameters() if p.shape == expected.shape)


def test_named_targets_and_saved_modules(tokenizer: PreTrainedTokenizerFast) -> None:
    adapted = build_backbone(lora("qwen2", target_modules=["q_proj"], modules_to_save=["embed_tokens"]), tokenizer)
    names = trainable(adapted)
    assert {n.split(".")[-4] for n in names if "lora_A" in n} == {"q_proj"}
    assert any("embed_tokens.modules_to_save" in n for n in names)


def test_unknown_target_lists_the_layers_of_the_model(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(
        ValueError, match=r"target_modules: this model has no linear layer 'q_proj'; it has c_attn, c_fc"
    ):
        build_backbone(lora("gpt2", target_modules=["q_proj"]), tokenizer)


def test_dropout_of_the_config_is_set(tokenizer: PreTrainedTokenizerFast) -> None:
    quiet = build_backbone(BackboneSettings(config=MODELS["gpt2"]), tokenizer)
    noisy = build_backbone(BackboneSettings(config=MODELS["gpt2"], dropout=0.3), tokenizer)
    own = build_backbone(BackboneSettings(config=MODELS["gpt2"], dropout=None), tokenizer)
    rates = [{m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} for model in (quiet, noisy, own)]
    assert rates == [{0.0}, {0.3}, {0.1}]


def test_pretrained_weights_are_read_from_safetensors_in_float32(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    model = causal_lm(build_backbone(BackboneSettings(config=MODELS["llama"]), tokenizer)).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "m")
    loaded = build_backbone(BackboneSettings(pretrained=str(tmp_path / "m")), tokenizer)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert context_length(BackboneSettings(pretrained=str(tmp_path / "m"))) == 512
    for original, read in zip(model.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(original.float(), read)


def test_pickled_weights_are_refused(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    model = causal_lm(build_backbone(BackboneSettings(config=MODELS["gpt2"]), tokenizer))
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"the weights could not be loaded.*Only safetensors files can be loaded"):
        build_backbone(BackboneSettings(pretrained=str(tmp_path)), tokenizer)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "no model: set either"),
        ({"pretrained": "x", "config": {}}, "two models: .* are both set"),
        ({"pretrained": "no/such-model-here"}, "--model.backbone.pretrained no/such-model-here: no such folder or hub"),
        ({"config": {"n_layer": 2}}, "--model.backbone.config: no model_type"),
        ({"config": {"model_type": "gtp2"}}, "transformers has no model_type 'gtp2'"),
        ({"config": {"model_type": "gpt2", "n_layers": 2}}, "gpt2 has no setting n_layers; did you mean n_layer"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match=message):
        build_backbone(BackboneSettings(**settings), tokenizer)


def test_tokenizer_larger_than_the_embedding_is_refused(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    model = AutoModelForCausalLM.from_config(
        causal_lm(build_backbone(BackboneSettings(config=MODELS["gpt2"]), tokenizer)).config
    )
    model.resize_token_embeddings(200)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has token ids up to 258, but the model's embedding has 200 rows"):
        build_backbone(BackboneSettings(pretrained=str(tmp_path)), tokenizer)


@pytest.mark.parametrize("name", MODELS)
def test_gradient_checkpointing_gives_the_same_gradients(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    def gradients(checkpointing: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        settings = BackboneSettings(
            config=MODELS[name], tuning="lora", lora=LoraSettings(rank=2), gradient_checkpointing=checkpointing
        )
        model = build_backbone(settings, tokenizer)
        causal_lm(model).base_model(
            input_ids=torch.tensor([[1, 2, 3]]), use_cache=False
        ).last_hidden_state.sum().backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    plain, recomputed = gradients(False), gradients(True)
    assert len(plain) == len(recomputed) > 0
    for a, b in zip(plain, recomputed, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # the compiler's own
@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("name", list(MODELS))
def test_compiled_layers_give_the_same_gradients_and_are_compiled_once_for_all_lengths(
    make_data: MakeData, tokenizer: PreTrainedTokenizerFast, name: str, tuning: str
) -> None:
    torch.manual_seed(0)
    plain = build_backbone(BackboneSettings(config=MODELS[name], tuning=tuning), tokenizer)  # type: ignore[arg-type]
    compiled = copy.deepcopy(plain)
    graphs: list[object] = []

    def count(graph: torch.fx.GraphModule, inputs: object) -> object:
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    compile_layers(compiled, backend=count)
    store = make_data(chat_rows(12)).stores["train"]
    seen = []
    for end in (3, 5, 9, 12):
        batch = collate([store[index] for index in range(end)], mask=MASKS["whole_sequence"], pack=True)
        for backbone in (plain, compiled):
            backbone.zero_grad()
            supervised_loss(backbone, batch)[0].backward()  # type: ignore[no-untyped-call]
        for a, b in zip(plain.parameters(), compiled.parameters(), strict=True):
            if a.requires_grad:
                torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-5)
        seen.append(len(graphs))
    assert seen[0] > 0
    assert seen[-1] == seen[1]
    prompts = [[1, 2, 3], [4]]
    answers = [generate(b, prompts, tokenizer=tokenizer, end_token_id=256) for b in (plain, compiled)]
    assert answers[0] == answers[1]
    assert len(graphs) == seen[-1]
    assert plain.state_dict().keys() == compiled.state_dict().keys()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # the compiler's own
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("name", list(MODELS))
def test_rows_of_one_document_compile_without_a_break(
    tokenizer: PreTrainedTokenizerFast, name: str, precision: str
) -> None:
    """Blocks of pretraining: attention is part of the compiled layer."""
    torch.manual_seed(0)
    plain = build_backbone(BackboneSettings(config=MODELS[name]), tokenizer)
    compiled = copy.deepcopy(plain)
    torch.compiler.reset()
    compile_layers(compiled, backend="eager", fullgraph=True)
    for rows in (4, 2):
        ids = np.random.default_rng(rows).integers(256, size=(rows, 24), dtype=np.int32)
        batch = collate_texts([[TextSequence(row, "made up")] for row in ids])
        for backbone in (plain, compiled):
            backbone.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
                loss = supervised_loss(backbone, batch)[0]
            loss.backward()  # type: ignore[no-untyped-call]
        for a, b in zip(plain.parameters(), compiled.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-5)
