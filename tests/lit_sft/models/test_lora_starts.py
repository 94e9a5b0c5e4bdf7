"""However adapters start, the model starts as its base, and checkpoints and exports give the trained model."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from data_modules.sft_data_module import SFTDataModule
from lit_sft.files import read_json
from lit_sft.models.adapters import LoraSettings
from lit_sft.models.backbone import BackboneSettings, build_backbone
from lit_sft.models.saving import export_model, load_weights
from lit_sft.runs.opening import open_model
from tests.conftest import MODELS, chat_rows
from tests.training import fit_backbone, save_base, whole_nll

MakeData = Callable[..., SFTDataModule]

# peft asks for a property that transformers has renamed
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended"),
]

STARTS = list(get_args(get_args(get_type_hints(LoraSettings)["init"])[0]))
FROM_BASE = ["olora", "pissa", "pissa_niter_16"]


@pytest.fixture
def data(make_data: MakeData) -> SFTDataModule:
    return make_data(chat_rows(24), val_fraction=0.2, template="plain", mask="firefly_multi_turn", batch_size=4)


def settings_for(base: str, init: Any, **lora: Any) -> BackboneSettings:
    return BackboneSettings(base, tuning="lora", lora=LoraSettings(**({"rank": 4, "alpha": 6} | lora), init=init))


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize(("name", "init"), [pair for pair in product(MODELS, STARTS) if pair != ("gpt2", "olora")])
def test_model_starts_as_its_base(
    name: str, init: str, rslora: bool, data: SFTDataModule, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    base = save_base(name, tmp_path / "base", tokenizer)
    started = build_backbone(settings_for(base, init, rslora=rslora), tokenizer)
    want = whole_nll(build_backbone(BackboneSettings(base), tokenizer), data)
    torch.testing.assert_close(whole_nll(started, data), want, rtol=0, atol=2e-6)
    weights = {n: p for n, p in started.named_parameters() if "lora_" in n}
    assert any(p.any() for n, p in weights.items() if "lora_B" in n) == (init != "gaussian")
    whole = {n.replace(".base_layer", ""): p for n, p in started.named_parameters()}
    changed = [
        n
        for n, p in build_backbone(BackboneSettings(base), tokenizer).named_parameters()
        if not torch.equal(p, whole[f"base_model.model.{n}"])
    ]
    assert bool(changed) == (init in FROM_BASE)


def test_pissa_takes_the_largest_singular_values_out_of_the_base(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    base = save_base("qwen2", tmp_path / "base", tokenizer)
    whole: Any = build_backbone(BackboneSettings(base), tokenizer)
    started: Any = build_backbone(settings_for(base, "pissa"), tokenizer)
    layer = started.base_model.model.model.layers[0].mlp.up_proj
    before = torch.linalg.svdvals(whole.model.layers[0].mlp.up_proj.weight.double())
    after = torch.linalg.svdvals(layer.base_layer.weight.double())
    torch.testing.assert_close(after[:-4], before[4:], rtol=0, atol=1e-6)
    product = (layer.lora_B["default"].weight @ layer.lora_A["default"].weight).double() * 6 / 4
    torch.testing.assert_close(torch.linalg.svdvals(product)[:4], before[:4], rtol=0, atol=1e-6)


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize(("name", "init"), [*(("qwen2", init) for init in STARTS), ("gpt2", "pissa")])
def test_export_is_plain_lora_of_the_original_base_and_equals_the_trained_model(
    name: str, init: str, rslora: bool, data: SFTDataModule, tmp_path: Path
) -> None:
    base = save_base(name, tmp_path / "base", data.tokenizer)
    module = fit_backbone(settings_for(base, init, rslora=rslora), data, tmp_path)
    trained = whole_nll(module.backbone, data)
    assert (trained - whole_nll(build_backbone(BackboneSettings(base), data.tokenizer), data)).abs().max() > 1e-2
    export_model(module.backbone, tmp_path / "adapter", data)
    export_model(module.backbone, tmp_path / "merged", data, merge=True)
    assert torch.equal(whole_nll(module.backbone, data), trained)
    for folder in ("adapter", "merged"):
        opened = open_model("m", str(tmp_path / folder), device="cpu")
        torch.testing.assert_close(whole_nll(opened.backbone, data), trained, rtol=0, atol=2e-5)
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "adapter")
    torch.testing.assert_close(whole_nll(theirs, data), trained, rtol=0, atol=2e-5)
    written = read_json(tmp_path / "adapter" / "adapter_config.json") or {}
    assert written["r"] == (8 if init in FROM_BASE else 4)
    assert (written["init_lora_weights"] is True) == (init in FROM_BASE)
    # it can be continued, as any adapter
    if init in FROM_BASE:
        on = build_backbone(BackboneSettings(base, tuning="lora", adapter=str(tmp_path / "adapter")), data.tokenizer)
        torch.testing.assert_close(whole_nll(on, data), trained, rtol=0, atol=2e-5)


@pytest.mark.parametrize("init", STARTS)
def test_resumed_run_equals_the_uninterrupted_one(init: str, data: SFTDataModule, tmp_path: Path) -> None:
    settings = settings_for(save_base("llama", tmp_path / "base", data.tokenizer), init)
    whole, half = fit_backbone(settings, data, tmp_path, 4), fit_backbone(settings, data, tmp_path, 2)
    half.trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed = fit_backbone(settings, data, tmp_path, 4, ckpt_path=str(tmp_path / "half.ckpt"))
    states = whole.backbone.state_dict(), resumed.backbone.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("name", ["qwen2", "gpt2"])
def test_checkpoint_opens_alike_where_singular_vectors_come_out_otherwise(
    name: str, data: SFTDataModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(save_base(name, tmp_path / "base", data.tokenizer), "pissa")
    module = fit_backbone(settings, data, tmp_path)
    module.trainer.save_checkpoint(tmp_path / "c.ckpt")
    trained, decompose = whole_nll(module.backbone, data), torch.linalg.svd

    def otherwise(weight: torch.Tensor, **options: Any) -> Any:
        u, s, v = decompose(weight, **options)
        return u.flip(1), s.flip(0), v.flip(0)  # the smallest instead of the largest

    monkeypatch.setattr(torch.linalg, "svd", otherwise)
    opened = build_backbone(settings, data.tokenizer)
    load_weights(opened, tmp_path / "c.ckpt")
    torch.testing.assert_close(whole_nll(opened, data), trained, rtol=0, atol=1e-5)
    export_model(opened, tmp_path / "adapter", data)
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(settings.pretrained), tmp_path / "adapter")
    torch.testing.assert_close(whole_nll(theirs, data), trained, rtol=0, atol=2e-5)


@pytest.mark.parametrize(("trained", "opened"), [("pissa", None), (None, "pissa")])
def test_checkpoint_of_another_start_is_refused(trained: Any, opened: Any, data: SFTDataModule, tmp_path: Path) -> None:
    base = save_base("llama", tmp_path / "base", data.tokenizer)
    module = fit_backbone(settings_for(base, trained), data, tmp_path)
    module.trainer.save_checkpoint(tmp_path / "c.ckpt")
    with pytest.raises(ValueError, match=r"its adapters did not start .*lora\.init"):
        load_weights(build_backbone(settings_for(base, opened), data.tokenizer), tmp_path / "c.ckpt")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"init": "pissa", "dora": True}, r"lora\.init pissa with `dora`"),
        ({"init": "orthogonal", "rank": 3}, r"lora\.rank 3: `init: orthogonal` needs an even rank"),
    ],
)
def test_starts_that_cannot_be_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoraSettings(**given)


def test_olora_of_gpt2_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    settings = BackboneSettings(config=MODELS["gpt2"], tuning="lora", lora=LoraSettings(init="olora"))
    with pytest.raises(ValueError, match="this model has Conv1D"):
        build_backbone(settings, tokenizer)
