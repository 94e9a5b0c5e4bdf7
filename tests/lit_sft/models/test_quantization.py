"""A quantised base computes with its dequantised weights, in training, evaluation and exports alike."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from peft import PeftModel
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from data_modules.batching.batch import collate
from data_modules.rendering.masking import MASKS
from data_modules.sft_data_module import SFTDataModule
from lit_sft.files import read_json
from lit_sft.models.adapters import LoraSettings, causal_lm
from lit_sft.models.backbone import BackboneSettings, build_backbone, narrow_frozen_layers
from lit_sft.models.generation import GenerationRequest, GenerationSettings, answer_requests, generate
from lit_sft.models.loss import supervised_loss
from lit_sft.models.quantization import (
    _NF4,
    Quantization,
    QuantizedLinear,
    dequantize,
    dequantized_once,
    parameter_sizes,
    quantize,
)
from lit_sft.models.saving import export_model, load_weights
from lit_sft.runs.opening import open_model
from lit_sft.training.sharding import check_strategy
from tests.conftest import MODELS, chat_rows
from tests.training import fit_backbone, save_base, whole_nll

MakeData = Callable[..., SFTDataModule]

pytestmark = [
    # peft asks for a property that transformers has renamed
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended"),
]

KINDS = get_args(Quantization)


@pytest.fixture
def data(make_data: MakeData) -> SFTDataModule:
    return make_data(chat_rows(24), val_fraction=0.2, template="plain", mask="firefly_multi_turn", batch_size=4)


def settings_for(base: str, kind: Any, **lora: Any) -> BackboneSettings:
    given = LoraSettings(**({"rank": 4, "alpha": 6} | lora))
    return BackboneSettings(base, tuning="lora", quantization=kind, lora=given)


def layer(kind: Any, *, bias: bool = True, shape: tuple[int, int] = (20, 33)) -> tuple[nn.Linear, QuantizedLinear]:
    torch.manual_seed(1)
    linear = nn.Linear(*shape, bias=bias).requires_grad_(False)
    return linear, QuantizedLinear(linear, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_counted_as_before_quantisation(kind: str) -> None:
    linear, quantised = layer(kind)  # 660 weights: not a multiple of a block
    model = nn.Sequential(quantised, nn.Linear(33, 2))
    assert parameter_sizes(model) == [(660, False), (33, False), (66, True), (2, True)]
    assert parameter_sizes(linear) == [(660, False), (33, False)]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_layer_and_its_gradient_are_those_of_the_dequantised_weight(kind: str, bias: bool) -> None:
    linear, quantised = layer(kind, bias=bias)
    weight = quantised.dequantized()
    x = torch.randn(2, 7, 20, requires_grad=True)
    y, like = quantised(x), F.linear(x, weight, linear.bias)
    assert torch.equal(y, like)
    gradient = torch.randn_like(y)
    torch.testing.assert_close(*(torch.autograd.grad(out, x, gradient)[0] for out in (y, like)), rtol=0, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(quantised(x), F.linear(x, weight, linear.bias))
    plain = quantised.plain()
    assert torch.equal(plain(x), like)


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 9), columns=st.integers(1, 70), scale=st.floats(1e-6, 1e4), seed=st.integers(0, 99))
def test_rounding_is_to_the_nearest_level(rows: int, columns: int, scale: float, seed: int) -> None:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * scale
    weight[0, 0] = 0
    linear = nn.Linear(columns, rows, bias=False).requires_grad_(False)
    linear.weight.copy_(weight)
    error = (QuantizedLinear(linear, "int8").dequantized() - weight).abs()
    assert (error <= weight.abs().amax(1, keepdim=True) / 254 * 1.0001).all()
    levels = torch.tensor(_NF4, dtype=torch.float64)
    found = QuantizedLinear(linear, "nf4").dequantized().flatten().double()
    for start in range(0, weight.numel(), 64):
        block = weight.flatten()[start : start + 64].double()
        nearest = (block.unsqueeze(1) - levels * block.abs().max()).abs().amin(1)
        distance = (found[start : start + 64] - block).abs()
        torch.testing.assert_close(distance, nearest, rtol=0, atol=1e-6 * scale)


def test_levels_are_sixteen_quantiles_of_a_normal_distribution() -> None:
    # QLoRA, appendix E: of 8 negative and 9 positive quantiles, between those of 0.9677083 and one half
    normal, offset = torch.distributions.Normal(0.0, 1.0), 0.9677083
    positive = normal.icdf(torch.linspace(offset, 0.5, 9, dtype=torch.float64)[:-1].float())
    negative = -normal.icdf(torch.linspace(offset, 0.5, 8, dtype=torch.float64)[:-1].float())
    wanted = torch.cat([positive, torch.zeros(1), negative]).sort().values
    torch.testing.assert_close(torch.tensor(_NF4), wanted / wanted.max(), rtol=0, atol=1e-5)


def test_codes_are_those_of_bitsandbytes() -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    linear, quantised = layer("nf4", shape=(64, 48))
    codes, state = functional.quantize_4bit(linear.weight, quant_type="nf4", compress_statistics=False)
    assert torch.equal(codes.flatten(), quantised.weight)
    assert torch.equal(state.absmax.flatten(), quantised.scale.flatten())


@pytest.mark.parametrize("kind", KINDS)
def test_scales_stay_in_float32_and_codes_as_they_are(kind: str) -> None:
    _, quantised = layer(kind)
    weight = quantised.dequantized()
    quantised.to(torch.bfloat16)
    assert torch.equal(quantised.dequantized(), weight)
    assert quantised(torch.ones(1, 20, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["qwen2", "llama"])
def test_quantised_model_is_the_model_with_rounded_weights(
    name: str, kind: Any, data: SFTDataModule, tmp_path: Path
) -> None:
    base = save_base(name, tmp_path / "base", data.tokenizer)
    quantised = build_backbone(settings_for(base, kind), data.tokenizer)
    model = causal_lm(quantised)
    count = sum(isinstance(module, QuantizedLinear) for module in model.modules())
    assert count == 7 * 2
    assert type(model.get_output_embeddings()) is nn.Linear
    trained = {n for n, p in quantised.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    rounded: Any = build_backbone(BackboneSettings(base), data.tokenizer)
    whole = whole_nll(rounded, data)
    quantize(rounded, kind)
    dequantize(rounded)
    assert not any(isinstance(module, QuantizedLinear) for module in rounded.modules())
    assert torch.equal(whole_nll(quantised, data), whole_nll(rounded, data))
    assert 1e-5 < (whole_nll(quantised, data) - whole).abs().max() < 0.3
    torch.testing.assert_close(whole_nll(quantised, data, pack=True), whole_nll(quantised, data), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_adapters_are_those_beside_the_rounded_weights(
    kind: Any, data: SFTDataModule, tmp_path: Path
) -> None:
    base = save_base("qwen2", tmp_path / "base", data.tokenizer)
    rounded: Any = build_backbone(BackboneSettings(base), data.tokenizer)
    quantize(rounded, kind)
    dequantize(rounded)
    rounded.save_pretrained(tmp_path / "rounded")
    batch = collate(list(data.stores["train"])[:4], mask=MASKS["whole_sequence"], pack=True)
    found = []
    for backbone in (settings_for(base, kind), settings_for(str(tmp_path / "rounded"), None)):
        torch.manual_seed(0)
        model = build_backbone(backbone, data.tokenizer)
        draw = torch.Generator().manual_seed(2)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data = torch.randn(parameter.shape, generator=draw) * 0.1
        supervised_loss(model, batch)[0].backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    for name in found[0]:
        torch.testing.assert_close(found[0][name], found[1][name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("saved", [None, ["embed_tokens"]])
def test_exports_agree_with_the_trained_model(kind: Any, saved: Any, data: SFTDataModule, tmp_path: Path) -> None:
    base = save_base("qwen2", tmp_path / "base", data.tokenizer)
    backbone = settings_for(base, kind, modules_to_save=saved)
    module = fit_backbone(backbone, data, tmp_path)
    trained = whole_nll(module.backbone, data)
    export_model(module.backbone, tmp_path / "adapter", data)
    export_model(module.backbone, tmp_path / "merged", data, merge=True)
    assert torch.equal(whole_nll(module.backbone, data), trained)
    assert torch.equal(whole_nll(open_model("m", str(tmp_path / "adapter"), device="cpu").backbone, data), trained)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(whole_nll(merged, data), trained, rtol=0, atol=2e-5)
    assert (read_json(tmp_path / "adapter" / "lit_sft.json") or {})["base"]["quantization"] == kind
    # beside the whole weights, it differs by their rounding
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "adapter")
    assert 1e-5 < (whole_nll(theirs, data) - trained).abs().max() < 0.3
    on = BackboneSettings(base, tuning="lora", quantization=kind, adapter=str(tmp_path / "adapter"))
    assert torch.equal(whole_nll(build_backbone(on, data.tokenizer), data), trained)


@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints_hold_adapters_only_and_resume_exactly(kind: Any, data: SFTDataModule, tmp_path: Path) -> None:
    backbone = settings_for(save_base("llama", tmp_path / "base", data.tokenizer), kind)
    whole, half = fit_backbone(backbone, data, tmp_path, 4), fit_backbone(backbone, data, tmp_path, 2)
    half.trainer.save_checkpoint(tmp_path / "half.ckpt")
    saved = torch.load(tmp_path / "half.ckpt", weights_only=True)["state_dict"]
    assert all("lora_" in name for name in saved)
    resumed = fit_backbone(backbone, data, tmp_path, 4, ckpt_path=str(tmp_path / "half.ckpt"))
    states = whole.backbone.state_dict(), resumed.backbone.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    whole.trainer.save_checkpoint(tmp_path / "whole.ckpt")
    opened = build_backbone(backbone, data.tokenizer)
    load_weights(opened, tmp_path / "whole.ckpt")
    assert torch.equal(whole_nll(opened, data), whole_nll(whole.backbone, data))


@pytest.mark.parametrize("kind", KINDS)
def test_narrowing_under_autocast_changes_no_bit(kind: Any, data: SFTDataModule, tmp_path: Path) -> None:
    backbone = settings_for(save_base("qwen2", tmp_path / "base", data.tokenizer), kind)
    model = build_backbone(backbone, data.tokenizer)
    with torch.autocast("cpu", torch.bfloat16):
        before = whole_nll(model, data)
        narrow_frozen_layers(model, torch.bfloat16)
        assert torch.equal(whole_nll(model, data), before)


@pytest.fixture
def dequantizing(monkeypatch: pytest.MonkeyPatch) -> list[QuantizedLinear]:
    """The layers that dequantised their weights, each time."""
    noted, compute = [], QuantizedLinear._computed

    def computed(layer: QuantizedLinear, dtype: torch.dtype) -> torch.Tensor:
        noted.append(layer)
        return compute(layer, dtype)

    monkeypatch.setattr(QuantizedLinear, "_computed", computed)
    return noted


def lively(base: str, kind: Any, tokenizer: PreTrainedTokenizerFast) -> Any:
    """A model whose answers differ from one another."""
    model = build_backbone(settings_for(base, None), tokenizer)
    torch.manual_seed(1)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3) if parameter.dim() > 1 else None
    quantize(causal_lm(model), kind)
    return model


PROMPTS = [list(text.encode()) for text in ("a", "hello there", "The quick brown fox")]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
@pytest.mark.parametrize("kind", KINDS)
def test_answers_dequantise_once_and_are_those_of_each_time(
    kind: Any, precision: str, tmp_path: Path, tokenizer: PreTrainedTokenizerFast, dequantizing: list[QuantizedLinear]
) -> None:
    model = lively(save_base("llama", tmp_path / "base", tokenizer), kind, tokenizer)
    if precision == "bf16-true":
        model.bfloat16()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    layers = [module for module in model.modules() if isinstance(module, QuantizedLinear)]
    options = {
        "tokenizer": tokenizer,
        "end_token_id": 256,
        "settings": GenerationSettings(max_new_tokens=9, batch_size=2),
    }
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
        once = generate(model, PROMPTS, **options)  # type: ignore[arg-type]
        assert sorted(map(id, dequantizing)) == sorted(map(id, layers))
        assert all(layer._held is None for layer in layers)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("lit_sft.models.generation.dequantized_once", nullcontext)
            each_time = generate(model, PROMPTS, **options)  # type: ignore[arg-type]
    assert len(dequantizing) > 9 * len(layers)
    assert once == each_time
    assert len({answer.text for answer in once}) > 1
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_held_weights_have_the_same_bits_and_are_dropped_at_the_end(dequantizing: list[QuantizedLinear]) -> None:
    _, quantised = layer("nf4")
    before = {dtype: quantised.dequantized(dtype) for dtype in (torch.float32, torch.bfloat16)}
    dequantizing.clear()
    with dequantized_once(quantised):
        for dtype, weight in before.items():
            held = quantised.dequantized(dtype)
            assert held.dtype == dtype
            assert torch.equal(held, weight)
            assert quantised.dequantized(dtype) is held
        with dequantized_once(quantised):
            pass
        assert quantised.dequantized() is quantised.dequantized()  # the inner context ends nothing
        assert len(dequantizing) == 2
        quantised.to(torch.bfloat16)
        assert torch.equal(quantised.dequantized(), before[torch.float32])
    freed = weakref.ref(held)
    del held
    assert freed() is None
    assert quantised.dequantized() is not quantised.dequantized()


def test_an_error_while_answering_drops_the_held_weights(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    model = lively(save_base("llama", tmp_path / "base", tokenizer), "nf4", tokenizer)
    layers = [module for module in model.modules() if isinstance(module, QuantizedLinear)]

    def listener(*_: object) -> None:
        assert all(layer._held for layer in layers)
        raise KeyError("stop")

    request = GenerationRequest(PROMPTS[0], GenerationSettings(max_new_tokens=4), listener=listener)
    with pytest.raises(KeyError, match="stop"):
        answer_requests(model, [request], tokenizer=tokenizer, end_token_id=256)
    assert all(layer._held is None for layer in layers)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tuning": "full"}, "quantised weights are frozen: set `--model.backbone.tuning lora`"),
        ({"pretrained": None, "config": MODELS["llama"]}, "random weights are not quantised"),
        (
            {"compile": True},
            "not with `--model.backbone.compile`, which is not tested with quantised weights: leave one",
        ),
        ({"lora": LoraSettings(dora=True)}, "not with `dora`"),
        ({"lora": LoraSettings(init="pissa")}, "not with `--model.backbone.lora.init pissa`"),
        ({"lora": LoraSettings(init="orthogonal")}, "not with `--model.backbone.lora.init orthogonal`"),
    ],
)
def test_what_needs_the_weights_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    base = save_base("llama", tmp_path / "base", tokenizer)
    chosen = {"pretrained": base, "tuning": "lora", "quantization": "nf4"} | changes
    with pytest.raises(ValueError, match=f"--model.backbone.quantization nf4: {message}"):
        build_backbone(BackboneSettings(**chosen), tokenizer)


def test_gpt2_is_refused(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    base = save_base("gpt2", tmp_path / "base", tokenizer)
    with pytest.raises(ValueError, match=r"quantization int8: the layers of gpt2 \(Conv1D\) cannot be quantised"):
        build_backbone(settings_for(base, "int8"), tokenizer)


def test_sharded_strategies_are_refused() -> None:
    with pytest.raises(ValueError, match="only one device and DDP are supported"):
        check_strategy(ModelParallelStrategy(), settings_for("base", "nf4"))
    check_strategy(DDPStrategy(), settings_for("base", "nf4"))
