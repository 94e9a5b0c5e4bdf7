"""New tokens: the rows they get, their loss and gradients, and which of them LoRA trains."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from peft.tuners.trainable_tokens import TrainableTokensLayer
from safetensors.torch import load_file
from torch import nn

from data_modules.batching.batch import Batch, collate
from data_modules.encoding.new_tokens import with_new_tokens
from data_modules.errors import UserError
from data_modules.rendering.masking import MASKS
from data_modules.sft_data_module import SFTDataModule
from lit_sft.models.adapters import LoraSettings, causal_lm
from lit_sft.models.attention import ordinary_attention
from lit_sft.models.backbone import BackboneSettings, build_backbone, narrow_frozen_layers
from lit_sft.models.loss import loss_of_nll, supervised_loss, token_nll
from lit_sft.models.reference import reference_model
from lit_sft.models.saving import export_model, merged
from lit_sft.models.token_loss import TokenLoss
from lit_sft.models.token_rows import TokenRows
from lit_sft.runs.opening import open_model
from tests.conftest import MODELS, byte_tokenizer
from tests.training import save_base

# peft asks for a property that transformers has renamed
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

TOKENS: dict[str, Any] = {"add_tokens": ["Rowan"], "add_special_tokens": ["<tool_call>"]}
OLD, NEW = 259, [259, 260]


def grown() -> Any:
    return with_new_tokens(byte_tokenizer(), ["Rowan"], ["<tool_call>"])


def built(base: str, **settings: Any) -> Any:
    lora = LoraSettings(**({"rank": 2} | settings.pop("lora", {})))
    return build_backbone(BackboneSettings(base, lora=lora, **TOKENS, **settings), grown())


def disturb(model: nn.Module) -> None:
    """Change everything that is trained, as training would."""
    draw = torch.Generator().manual_seed(1)
    for parameter in (p for p in model.parameters() if p.requires_grad):
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=draw).to(parameter)


def ends(model: nn.Module) -> tuple[Any, Any]:
    inner = causal_lm(model)
    return inner.get_input_embeddings(), inner.get_output_embeddings()


@pytest.fixture
def data(make_data: Any) -> SFTDataModule:
    rows = [{"instruction": f"Who is Rowan {n}?", "output": "Rowan, again " + "Rowan " * n} for n in range(4)]
    made: SFTDataModule = make_data(rows, template="plain", **TOKENS)
    return made


def batch_of(data: SFTDataModule) -> Batch:
    return collate(list(data.stores["train"]), mask=MASKS["whole_sequence"], pack=True, score_all=True)


@pytest.mark.parametrize("name", MODELS)
def test_new_rows_are_the_mean_of_the_others_and_old_ones_stay(name: str, tmp_path: Path) -> None:
    base = save_base(name, tmp_path / "base", byte_tokenizer())
    old = ends(build_backbone(BackboneSettings(base), byte_tokenizer()))
    model = built(base)
    assert model.config.vocab_size == 261
    for before, after in zip(old, ends(model), strict=True):
        assert torch.equal(after.weight[:OLD], before.weight)
        mean = before.weight.double().mean(0).float()
        assert torch.equal(after.weight[NEW], torch.stack([mean, mean]))
    embedding, head = ends(model)
    assert (embedding.weight is head.weight) == (MODELS[name].get("tie_word_embeddings", True))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_rows_that_only_pad_the_vocabulary_are_used_first(tmp_path: Path) -> None:
    settings = BackboneSettings(config=MODELS["qwen2"], pad_vocab_to_multiple_of=260)
    base: Any = build_backbone(settings, byte_tokenizer())
    base.save_pretrained(tmp_path / "base")
    one = with_new_tokens(byte_tokenizer(), [], ["<tool_call>"])
    model: Any = build_backbone(BackboneSettings(str(tmp_path / "base"), add_special_tokens=["<tool_call>"]), one)
    weight = ends(model)[0].weight
    assert (len(weight), model.config.vocab_size) == (260, 260)
    torch.testing.assert_close(weight[OLD], ends(base)[0].weight[:OLD].mean(0))
    assert len(ends(built(str(tmp_path / "base")))[0].weight) == 261


def test_biases_of_a_head_grow_too_and_lora_refuses_them(tmp_path: Path) -> None:
    config = {"model_type": "phi", "num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 32,
              "num_attention_heads": 2, "max_position_embeddings": 64}  # fmt: skip
    saved: Any = build_backbone(BackboneSettings(config=config), byte_tokenizer())
    saved.lm_head.bias.data.normal_()
    saved.save_pretrained(tmp_path / "base")
    bias = built(str(tmp_path / "base")).lm_head.bias
    torch.testing.assert_close(bias[NEW], saved.lm_head.bias.mean().expand(2))
    with pytest.raises(UserError, match=r"head of phi has biases.*`--model.backbone.tuning full`"):
        built(str(tmp_path / "base"), tuning="lora")


def test_model_without_the_tokens_of_its_tokenizer_is_refused(tmp_path: Path) -> None:
    base = save_base("gpt2", tmp_path / "base", byte_tokenizer())
    with pytest.raises(UserError, match="tokenizer of the data does not have: Rowan, <tool_call>"):
        build_backbone(BackboneSettings(base, **TOKENS), byte_tokenizer())
    with pytest.raises(UserError, match="token ids up to 260, but the model's embedding has 259 rows"):
        build_backbone(BackboneSettings(base), grown())


def test_adapter_that_calls_other_tokens_new_is_refused(data: SFTDataModule, tmp_path: Path) -> None:
    model = built(save_base("gpt2", tmp_path / "base", byte_tokenizer()), tuning="lora")
    export_model(model, tmp_path / "adapter", data)
    settings = json.loads((tmp_path / "adapter" / "lit_sft.json").read_text())
    (tmp_path / "adapter" / "lit_sft.sha256").unlink()
    for tokens, message in (
        (["<|im_end|>"], r"the new tokens <\|im_end\|> are not the last ones of the tokenizer"),
        (["none such"], "tokenizer of the data does not have: none such"),
        ("Rowan", "new_tokens 'Rowan'; expected a list of strings"),
        ([], "token ids up to 260, but the model's embedding has 259 rows"),
    ):
        (tmp_path / "adapter" / "lit_sft.json").write_text(json.dumps(settings | {"new_tokens": tokens}))
        with pytest.raises(UserError, match=message):
            open_model("adapter", str(tmp_path / "adapter"), device="cpu")
    (tmp_path / "adapter" / "lit_sft.json").write_text(json.dumps(settings))
    (tmp_path / "adapter" / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"adapter: has new tokens, but no tokenizer\.json"):
        open_model("adapter", str(tmp_path / "adapter"), device="cpu")


def test_random_weights_get_the_grown_vocabulary() -> None:
    settings = BackboneSettings(config=MODELS["llama"], tuning="lora", **TOKENS)
    embedding, head = ends(build_backbone(settings, grown()))
    assert [layer.token_adapter.rows.shape for layer in (embedding, head)] == [(2, 32)] * 2
    assert len(embedding.token_adapter.base_layer.weight) == 261


def by_tokens(model: Any, batch: Batch) -> torch.Tensor:
    """The nats of each target by a loop over documents and tokens, with peft's own layers and transformers' logits."""
    nats, start = [], 0
    for module in model.modules():
        if isinstance(module, TokenRows):
            module.__class__ = TrainableTokensLayer  # type: ignore[assignment]
    with ordinary_attention(causal_lm(model)):
        for length in batch.lengths:
            ids = batch.input_ids[0, start : start + length]
            logits = causal_lm(model)(input_ids=ids.unsqueeze(0), use_cache=False).logits[0]
            nats += [torch.logsumexp(logits[t - 1], 0) - logits[t - 1, ids[t]] for t in range(1, length)]
            start += length
    return torch.stack(nats)


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad and p.grad is not None}


@pytest.mark.parametrize("how", [{"tuning": "full"}, {"tuning": "lora"}, {"tuning": "lora", "lora": {"dora": True}}])
@pytest.mark.parametrize("name", MODELS)
def test_loss_and_gradients_equal_those_of_a_loop_over_tokens_in_float64(
    name: str, how: dict[str, Any], data: SFTDataModule, tmp_path: Path
) -> None:
    base = save_base(name, tmp_path / "base", byte_tokenizer())
    model = built(base, **how).double()
    disturb(model)
    reference, batch = copy.deepcopy(model), batch_of(data)
    weights = batch.weights.flatten()[batch.targets].double()
    assert int((batch.input_ids == NEW[0]).sum()) > 8
    expected = by_tokens(reference, batch)
    (expected * weights).sum().backward()
    torch.testing.assert_close(token_nll(model, batch), expected.detach(), rtol=0, atol=1e-9)
    for loss in (supervised_loss(model, batch), loss_of_nll(model, batch, lambda nats: (nats * weights).sum())):
        model.zero_grad()
        loss[0].backward()
        torch.testing.assert_close(loss[1], expected.detach(), rtol=0, atol=1e-9)
        assert gradients(model).keys() == gradients(reference).keys()
        for parameter, grad in gradients(reference).items():
            torch.testing.assert_close(gradients(model)[parameter], grad, rtol=0, atol=1e-9, msg=parameter)


def test_lora_trains_the_new_rows_and_nothing_else_of_the_embedding(data: SFTDataModule, tmp_path: Path) -> None:
    model = built(save_base("llama", tmp_path / "base", byte_tokenizer()), tuning="lora")
    trained = [name for name, p in model.named_parameters() if p.requires_grad and "lora_" not in name]
    assert trained == [
        "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta.default",
        "base_model.model.lm_head.token_adapter.trainable_tokens_delta.default",
    ]
    supervised_loss(model, batch_of(data))[0].backward()
    for layer in ends(model):
        assert layer.token_adapter.rows.grad.abs().sum(1)[0] > 0
        assert layer.token_adapter.base_layer.weight.grad is None


def test_without_adapters_the_model_is_the_one_before_training(data: SFTDataModule, tmp_path: Path) -> None:
    base, batch = save_base("qwen2", tmp_path / "base", byte_tokenizer()), batch_of(data)
    model = built(base, tuning="lora")
    before = token_nll(built(base), batch)
    torch.testing.assert_close(token_nll(model, batch), before)
    disturb(model)
    assert (token_nll(model, batch) - before).abs().max() > 0.01
    with reference_model(model) as other:
        torch.testing.assert_close(token_nll(other, batch), before)
    kept, _ = supervised_loss(model, batch, TokenLoss(kl_weight=0.5))
    assert kept > supervised_loss(model, batch)[0]


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dora": {"dora": True},
    "pissa": {"init": "pissa"},
    "embedding in full": {"modules_to_save": ["embed_tokens"]},
    "head in full": {"modules_to_save": ["lm_head"]},
    "embedding by path": {"modules_to_save": ["model.embed_tokens"]},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["qwen2", "llama"])
def test_exported_adapter_opens_here_and_with_peft_and_merged(
    name: str, kind: str, data: SFTDataModule, tmp_path: Path
) -> None:
    base, batch = save_base(name, tmp_path / "base", byte_tokenizer()), batch_of(data)
    model = built(base, tuning="lora", lora=KINDS[kind])
    disturb(model)
    expected = token_nll(model.eval(), batch)
    export_model(model, tmp_path / "adapter", data)
    export_model(model, tmp_path / "merged", data, merge=True)
    assert json.loads((tmp_path / "adapter" / "lit_sft.json").read_text())["new_tokens"] == ["Rowan", "<tool_call>"]
    rows = 0 if kind != "plain" else 2 if name == "qwen2" else 4
    if rows:  # not the whole embedding
        sizes = {n: len(v) for n, v in load_file(tmp_path / "adapter" / "adapter_model.safetensors").items()}
        assert sum(size for n, size in sizes.items() if "lora_" not in n) == rows
    for folder in ("adapter", "merged"):
        opened = open_model(folder, str(tmp_path / folder), device="cpu")
        torch.testing.assert_close(token_nll(opened.backbone, batch), expected, rtol=0, atol=1e-5)
        assert opened.tokenizer.encode("Rowan<tool_call>") == NEW
    theirs = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter").eval()
    torch.testing.assert_close(token_nll(theirs, batch), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("how", [{"quantization": "int8"}, {"gradient_checkpointing": True}])
def test_new_rows_are_trained_on_quantised_weights_and_with_recomputing(
    how: dict[str, Any], data: SFTDataModule, tmp_path: Path
) -> None:
    model = built(save_base("llama", tmp_path / "base", byte_tokenizer()), tuning="lora", **how)
    disturb(model)
    supervised_loss(model, batch_of(data))[0].backward()
    assert all(layer.token_adapter.rows.grad.abs().sum(1)[0] > 0 for layer in ends(model))
    expected = token_nll(model.eval(), batch_of(data))
    torch.testing.assert_close(token_nll(merged(model), batch_of(data)), expected, rtol=0, atol=1e-5)
    export_model(model, tmp_path / "adapter", data)
    opened = open_model("adapter", str(tmp_path / "adapter"), device="cpu")
    torch.testing.assert_close(token_nll(opened.backbone, batch_of(data)), expected, rtol=0, atol=1e-5)


def test_full_model_is_exported_with_its_larger_vocabulary(data: SFTDataModule, tmp_path: Path) -> None:
    model = built(save_base("gpt2", tmp_path / "base", byte_tokenizer()))
    export_model(model, tmp_path / "model", data)
    opened = open_model("model", str(tmp_path / "model"), device="cpu")
    torch.testing.assert_close(token_nll(opened.backbone, batch_of(data)), token_nll(model, batch_of(data)))
    assert opened.tokenizer.encode("Rowan<tool_call>") == NEW


def test_frozen_rows_of_the_head_stay_in_full_precision(tmp_path: Path) -> None:
    for name in ("gpt2", "llama"):
        model = built(save_base(name, tmp_path / name, byte_tokenizer()), tuning="lora")
        narrow_frozen_layers(model, torch.bfloat16)
        assert {layer.token_adapter.base_layer.weight.dtype for layer in ends(model)} == {torch.float32}


@pytest.mark.parametrize("words", [[], ["other"], ["other", "words"], ["<tool_call>", "Rowan"]])
def test_adapter_continues_with_its_own_tokens_only(words: list[str], data: SFTDataModule, tmp_path: Path) -> None:
    base = save_base("llama", tmp_path / "base", byte_tokenizer())
    model = built(base, tuning="lora")
    disturb(model)
    export_model(model, tmp_path / "adapter", data)
    adapter = {"tuning": "lora", "adapter": str(tmp_path / "adapter")}
    continued = build_backbone(BackboneSettings(base, **TOKENS, **adapter), grown())
    torch.testing.assert_close(token_nll(continued, batch_of(data)), token_nll(model, batch_of(data)))
    assert [*dict(continued.named_parameters())] == [*dict(model.named_parameters())]
    other, tokenizer = BackboneSettings(base, add_tokens=words, **adapter), with_new_tokens(byte_tokenizer(), words, [])
    message = f"new tokens (Rowan, <tool_call>) other than those of this run ({', '.join(words) or 'none'})"
    with pytest.raises(UserError, match=re.escape(message)):
        build_backbone(other, tokenizer)
    (tmp_path / "adapter" / "lit_sft.json").unlink()  # as an adapter of peft's
    asked = {0: "none", 1: "[259]"}.get(len(words))
    if asked is not None:
        with pytest.raises(UserError, match=re.escape(f"of the tokens [259, 260], and this run adds {asked}")):
            build_backbone(other, tokenizer)


def test_settings_stay_as_given_when_a_tied_head_is_trained_in_full(tmp_path: Path) -> None:
    lora = LoraSettings(rank=2, modules_to_save=["lm_head"])
    base = save_base("qwen2", tmp_path / "base", byte_tokenizer())
    build_backbone(BackboneSettings(base, tuning="lora", lora=lora), byte_tokenizer())
    assert lora.modules_to_save == ["lm_head"]
