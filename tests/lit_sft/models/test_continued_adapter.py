"""An adapter that continues is the adapter that was exported; what contradicts it is refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from data_modules.sft_data_module import SFTDataModule
from lit_sft.files import read_json
from lit_sft.models.adapters import LoraSettings, causal_lm
from lit_sft.models.backbone import BackboneSettings, build_backbone
from lit_sft.models.saving import export_model, load_weights
from lit_sft.runs.opening import open_model
from lit_sft.training.module import LitCausalLM
from lit_sft.training.optimization import OptimizerSettings
from tests.conftest import MODELS, byte_tokenizer, chat_rows
from tests.training import make_trainer, save_base, whole_nll

MakeData = Callable[..., SFTDataModule]

# peft asks for a property that transformers has renamed
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"rslora": True},
    "dora": {"dora": True},
    "one layer": {"target_modules": ["q_proj"]},
    "embedding too": {"modules_to_save": ["embed_tokens"]},
}


@pytest.fixture
def data(make_data: MakeData) -> SFTDataModule:
    return make_data(chat_rows(12), val_fraction=0.3, template="plain", mask="firefly_multi_turn", batch_size=4)


def save_adapter(base: str, folder: Path, **lora: Any) -> str:
    """An adapter with random weights."""
    settings = BackboneSettings(pretrained=base, tuning="lora", lora=LoraSettings(**({"rank": 2, "alpha": 3} | lora)))
    adapted: Any = build_backbone(settings, byte_tokenizer())
    draw = torch.Generator().manual_seed(1)
    for parameter in (p for p in adapted.parameters() if p.requires_grad):
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=draw)
    adapted.save_pretrained(folder)
    return str(folder)


def continued(base: str, adapter: str, **lora: Any) -> nn.Module:
    settings = BackboneSettings(pretrained=base, tuning="lora", adapter=adapter, lora=LoraSettings(**lora))
    return build_backbone(settings, byte_tokenizer())


def trainable(model: nn.Module) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("kind", KINDS)
def test_continued_adapter_computes_what_it_did_and_trains_the_same_weights(
    kind: str, data: SFTDataModule, tmp_path: Path
) -> None:
    base = save_base("qwen2", tmp_path / "base", byte_tokenizer())
    adapter = save_adapter(base, tmp_path / "adapter", **KINDS[kind])
    own = continued(base, adapter)
    assert own.training
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    torch.testing.assert_close(whole_nll(own, data), whole_nll(theirs, data), rtol=0, atol=1e-6)
    assert (
        whole_nll(own, data) - whole_nll(build_backbone(BackboneSettings(base), byte_tokenizer()), data)
    ).abs().max() > 1e-3
    lora = LoraSettings(**({"rank": 2, "alpha": 3} | KINDS[kind]))
    new = build_backbone(BackboneSettings(base, tuning="lora", lora=lora), byte_tokenizer())
    assert trainable(own) == trainable(new)
    tied = causal_lm(own).get_output_embeddings().weight is causal_lm(own).get_input_embeddings().weight  # type: ignore[union-attr]
    assert tied == (causal_lm(new).get_output_embeddings().weight is causal_lm(new).get_input_embeddings().weight)  # type: ignore[union-attr]


def test_tied_embedding_of_gpt2_continues_with_its_head(tmp_path: Path) -> None:
    base = save_base("gpt2", tmp_path / "base", byte_tokenizer())
    adapter = save_adapter(base, tmp_path / "adapter", modules_to_save=["wte"])
    own = causal_lm(continued(base, adapter, modules_to_save=["wte"]))
    embedding, head = own.get_input_embeddings(), own.get_output_embeddings()
    assert embedding.weight is head.weight  # type: ignore[union-attr]
    assert embedding.weight.requires_grad  # type: ignore[union-attr]
    saved = load_file(Path(adapter) / "adapter_model.safetensors")
    assert torch.equal(embedding.weight, saved["base_model.model.transformer.wte.weight"])  # type: ignore[union-attr]


def fit(backbone: BackboneSettings, data: SFTDataModule, folder: Path, **settings: Any) -> LitCausalLM:
    module = LitCausalLM(backbone, OptimizerSettings(lr=1e-2, schedule="constant"))
    make_trainer(folder, max_steps=3, **settings).fit(module, datamodule=data)
    return module


@pytest.mark.parametrize("kind", KINDS)
def test_export_of_a_continued_run_is_an_adapter_of_the_same_base(
    kind: str, data: SFTDataModule, tmp_path: Path
) -> None:
    base = save_base("qwen2", tmp_path / "base", byte_tokenizer())
    first = save_adapter(base, tmp_path / "first", **KINDS[kind])
    module = fit(BackboneSettings(base, tuning="lora", adapter=first), data, tmp_path)
    before, after = whole_nll(continued(base, first), data), whole_nll(module.backbone, data)
    assert (before - after).abs().max() > 1e-4
    export_model(module.backbone, tmp_path / "second", data)
    export_model(module.backbone, tmp_path / "merged", data, merge=True)
    for folder in ("second", "merged"):
        opened = open_model("m", str(tmp_path / folder), device="cpu")
        torch.testing.assert_close(whole_nll(opened.backbone, data), after, rtol=0, atol=2e-6)
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "second")
    torch.testing.assert_close(whole_nll(theirs, data), after, rtol=0, atol=2e-6)
    written = [read_json(tmp_path / "second" / name) or {} for name in ("lit_sft.json", "adapter_config.json")]
    assert written[0]["base"]["name"] == written[1]["base_model_name_or_path"] == base
    # and on: a third run continues the second
    torch.testing.assert_close(whole_nll(continued(base, str(tmp_path / "second")), data), after, rtol=0, atol=2e-6)


def test_checkpoint_of_a_continued_run_opens_and_resumes_with_that_adapter_only(
    data: SFTDataModule, tmp_path: Path
) -> None:
    base = save_base("llama", tmp_path / "base", byte_tokenizer())
    first = save_adapter(base, tmp_path / "first", dropout=0.5)
    settings = BackboneSettings(base, tuning="lora", adapter=first)
    module = fit(settings, data, tmp_path)
    module.trainer.save_checkpoint(tmp_path / "c.ckpt")
    opened = build_backbone(settings, data.tokenizer)
    load_weights(opened, tmp_path / "c.ckpt")
    assert torch.equal(whole_nll(opened, data), whole_nll(module.backbone, data))
    again = LitCausalLM.load_from_checkpoint(tmp_path / "c.ckpt", tokenizer=data.tokenizer)
    assert torch.equal(whole_nll(again.backbone, data), whole_nll(module.backbone, data))
    weights = Path(first) / "adapter_model.safetensors"
    save_file({n: w * 2 for n, w in load_file(weights).items()}, weights, {"format": "pt"})
    load_weights(build_backbone(settings, data.tokenizer), tmp_path / "c.ckpt")  # has every weight
    resumed = LitCausalLM(settings, OptimizerSettings(lr=1e-2, schedule="constant"))
    trainer = make_trainer(tmp_path, max_steps=4)
    with pytest.raises(ValueError, match=r"--model\.backbone\.adapter was .* and is now"):
        trainer.fit(resumed, datamodule=data, ckpt_path=tmp_path / "c.ckpt", weights_only=True)
    config = json.loads((Path(first) / "adapter_config.json").read_text())
    (Path(first) / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 5}))
    with pytest.raises(ValueError, match="digest of its adapter"):
        load_weights(build_backbone(settings, data.tokenizer), tmp_path / "c.ckpt")


def test_dropout_is_that_of_the_run(tmp_path: Path) -> None:
    base = save_base("llama", tmp_path / "base", byte_tokenizer())
    adapter = save_adapter(base, tmp_path / "adapter", dropout=0.5)
    for rate in (0.0, 0.25):
        modules = continued(base, adapter, dropout=rate).modules()
        rates = {m.p for m in modules if isinstance(m, nn.Dropout)}
        assert rates == ({rate} if rate else set())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rank": 4}, r"lora\.rank 4: the adapter that continues .* has 2"),
        ({"alpha": 4.0}, r"lora\.alpha 4\.0: .* has 3"),
        ({"target_modules": ["q_proj"]}, r"lora\.target_modules \['q_proj'\]: .* has \['down_proj', "),
        ({"modules_to_save": ["embed_tokens"]}, r"lora\.modules_to_save .* has None"),
        ({"rslora": True}, r"lora\.rslora True: .* has False"),
        ({"dora": True}, r"lora\.dora True: .* has False"),
    ],
)
def test_settings_that_contradict_the_adapter_are_refused(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    base = save_base("llama", tmp_path / "base", byte_tokenizer())
    adapter = save_adapter(base, tmp_path / "adapter")
    with pytest.raises(ValueError, match=message):
        continued(base, adapter, **given)


def test_settings_that_repeat_the_adapter_are_accepted(tmp_path: Path) -> None:
    base = save_base("llama", tmp_path / "base", byte_tokenizer())
    adapter = save_adapter(base, tmp_path / "adapter", target_modules=["v_proj", "q_proj"])
    continued(base, adapter, rank=2, alpha=3.0, target_modules=["q_proj", "v_proj"])
    settings = BackboneSettings(base, tuning="lora", adapter=adapter, lora=LoraSettings(alpha=3))
    everywhere = save_adapter(base, tmp_path / "everywhere", target_modules="all-linear")
    continued(
        base, everywhere, target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )
    assert settings.adapters == LoraSettings(rank=2, alpha=3, target_modules=["q_proj", "v_proj"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "an adapter of type IA3; expected LORA"),
        ({"alora_invocation_tokens": [1]}, r"adapters with alora_invocation_tokens \[1\] cannot be trained"),
        ({"layer_replication": [[0, 2]]}, "adapters with layer_replication"),
        ({"megatron_config": {"a": 1}, "megatron_core": "os"}, "adapters with megatron_config"),
        ({"bias": "lora_only"}, "adapters with bias lora_only"),
        ({"of_tomorrow": 3}, "adapters with of_tomorrow 3"),
        ({"init_lora_weights": "pissa"}, r"changed the weights of its base \(pissa\)\. Convert it to plain LoRA"),
        ({"r": 4}, "does not fit the model"),
    ],
)
def test_adapters_that_cannot_continue_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    base = save_base("llama", tmp_path / "base", byte_tokenizer())
    adapter = save_adapter(base, tmp_path / "adapter")
    path = Path(adapter) / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=message) as caught:
        continued(base, adapter)
    assert str(caught.value).startswith(f"--model.backbone.adapter {adapter}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tuning": "full"}, "only LoRA continues an adapter"),
        ({"pretrained": None, "config": MODELS["llama"]}, r"set `--model\.backbone\.pretrained` to the model"),
        ({"adapter": "nowhere"}, r"nowhere: no adapter_config\.json in this folder"),
    ],
)
def test_settings_without_what_an_adapter_needs_are_refused(
    settings: dict[str, Any], message: str, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    base = save_base("llama", tmp_path / "base", byte_tokenizer())
    given = {"pretrained": base, "tuning": "lora", "adapter": save_adapter(base, tmp_path / "adapter")} | settings
    with pytest.raises(ValueError, match=message):
        build_backbone(BackboneSettings(**given), tokenizer)


def test_adapter_of_another_base_is_refused_by_its_digests(data: SFTDataModule, tmp_path: Path) -> None:
    base = save_base("llama", tmp_path / "base", byte_tokenizer())
    settings = BackboneSettings(base, tuning="lora", lora=LoraSettings(rank=2))
    export_model(build_backbone(settings, data.tokenizer), tmp_path / "adapter", data)
    other = shutil.copytree(base, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    save_file({n: w + 1e-3 for n, w in weights.items()}, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=rf"{re.escape(str(tmp_path / 'adapter'))}: trained on a base model other"):
        continued(str(other), str(tmp_path / "adapter"))
