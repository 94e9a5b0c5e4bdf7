from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, SingleDeviceStrategy
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from data_modules.errors import UserError
from data_modules.sft_data_module import SFTDataModule
from lit_sft.models.backbone import BackboneSettings
from lit_sft.training.muon import MuonAdamW, matrices_of_layers
from lit_sft.training.optimization import OptimizerSettings, build_optimizer, build_schedule, check_optimizer
from tests.conftest import MODELS, chat_rows
from tests.training import make_module, train

MakeData = Callable[..., SFTDataModule]

MUON = OptimizerSettings(name="muon", lr=0.01, weight_decay=0.1, betas=(0.9, 0.95), schedule="linear", warmup_steps=2)


def tiny(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(AutoConfig.for_model(**MODELS[name], vocab_size=97))
    return model.eval()  # GPT-2 has dropout


def backward(model: PreTrainedModel, seed: int) -> None:
    ids = torch.randint(97, (2, 12), generator=torch.Generator().manual_seed(seed))
    model.zero_grad()
    model(input_ids=ids, labels=ids).loss.backward()


@pytest.mark.parametrize(
    ("name", "per_layer"),
    [
        ("gpt2", {"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"}),
        ("qwen2", {*(f"self_attn.{n}_proj" for n in "qkvo"), *(f"mlp.{n}_proj" for n in ("gate", "up", "down"))}),
        ("llama", {*(f"self_attn.{n}_proj" for n in "qkvo"), *(f"mlp.{n}_proj" for n in ("gate", "up", "down"))}),
    ],
)
def test_muon_gets_the_matrices_of_the_layers_and_adamw_the_rest(name: str, per_layer: set[str]) -> None:
    model = tiny(name)  # Llama's head is not tied to its embedding
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    layers = "transformer.h" if name == "gpt2" else "model.layers"
    expected = {f"{layers}.{layer}.{part}.weight" for layer in range(2) for part in per_layer}
    assert {names[id(weight)] for weight in matrices_of_layers(model)} == expected
    groups = build_optimizer(model, MUON).param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.1, 0.0]
    assert {names[id(weight)] for weight in groups[0]["params"]} == expected
    assert [weight.dim() for weight in groups[2]["params"]] == [1] * len(groups[2]["params"])
    assert sorted(names[id(p)] for group in groups for p in group["params"]) == sorted(names.values())


@pytest.mark.parametrize("name", list(MODELS))
def test_one_optimiser_does_exactly_what_torch_muon_and_adamw_do_apart(name: str) -> None:
    model = tiny(name)
    reference = copy.deepcopy(model)
    optimizer = build_optimizer(model, MUON)
    schedule = build_schedule(optimizer, MUON, 6)
    matrices = matrices_of_layers(reference)
    others = [p for p in reference.parameters() if all(p is not matrix for matrix in matrices)]
    muon = torch.optim.Muon(matrices, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    groups = [{"params": [p for p in others if p.dim() > 1], "weight_decay": 0.1}]
    groups.append({"params": [p for p in others if p.dim() < 2], "weight_decay": 0.0})
    adamw = torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=True)
    for step, factor in enumerate((0.5, 1.0, 1.0, 0.75, 0.5, 0.25)):
        for group in (*muon.param_groups, *adamw.param_groups):
            group["lr"] = 0.01 * factor
        for one in (model, reference):
            backward(one, step)
        for part in (optimizer, muon, adamw):
            part.step()  # type: ignore[no-untyped-call]
        schedule.step()
    for one, other in zip(model.parameters(), reference.parameters(), strict=True):
        assert torch.equal(one, other)


def test_an_update_is_nearly_orthogonal_and_as_large_as_adamws() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(64, 256, bias=False)
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.randn(256, 64) @ torch.diag(torch.logspace(0, -2, 64))
    optimizer = MuonAdamW(
        [{"params": [layer.weight], "weight_decay": 0.0}], [{"params": [nn.Parameter(torch.zeros(1))]}],
        lr=0.01, momentum=0.95, betas=(0.9, 0.999), eps=1e-8, fused=False,
    )  # fmt: skip
    optimizer.step()
    update = (layer.weight.detach() - before) / 0.01
    values = torch.linalg.svdvals(update)
    assert values.max() / values.min() < 3  # the gradient's differ by a factor of 100
    # AdamW's updates have a root mean square of 0.2 to 0.4 in training (arXiv 2502.16982)
    assert float(update.square().mean().sqrt()) == pytest.approx(0.2, rel=0.2)


def test_the_layout_of_gpt2s_weights_does_not_matter() -> None:
    """Conv1D stores (in, out), Linear (out, in): the updates are transposes of each other."""
    torch.manual_seed(0)
    linear, conv = nn.Linear(32, 96), Conv1D(96, 32)
    gradient = torch.randn(96, 32)
    with torch.no_grad():
        conv.weight.copy_(linear.weight.T)
    linear.weight.grad, conv.weight.grad = gradient.clone(), gradient.T.clone()
    for layer in (linear, conv):
        build_optimizer(layer, MUON).step()  # type: ignore[no-untyped-call]
    # the updates are about 2e-3 and computed in bfloat16
    torch.testing.assert_close(conv.weight.T, linear.weight, rtol=0, atol=1e-4)


def test_state_saved_and_loaded_goes_on_exactly() -> None:
    model = tiny("gpt2")
    optimizer = build_optimizer(model, MUON)
    for step in range(2):
        backward(model, step)
        optimizer.step()  # type: ignore[no-untyped-call]
    copied = copy.deepcopy(model)
    resumed = build_optimizer(copied, MUON)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for step in range(2, 4):
        for one, its in ((model, optimizer), (copied, resumed)):
            backward(one, step)
            its.step()  # type: ignore[no-untyped-call]
    for one, other in zip(model.parameters(), copied.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_gradient_scaler_skips_steps_that_overflow() -> None:
    model = tiny("gpt2")
    optimizer = build_optimizer(model, MUON, fused=False)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    before = [p.detach().clone() for p in model.parameters()]
    for gradient, moves in ((float("inf"), False), (1.0, True)):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        scaler.scale(torch.zeros(()))
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True)) == moves


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_training_with_clipping_lowers_the_loss(make_data: MakeData, tmp_path: Path, precision: str) -> None:
    module = make_module(name_of_optimizer="muon", lr=0.01)
    data = make_data(chat_rows(40), val_fraction=0.2, template="plain", batch_size=4)
    train(data, tmp_path, module, precision=precision, gradient_clip_val=1.0, max_epochs=3)
    assert isinstance(module.trainer.optimizers[0], MuonAdamW)
    assert module.metrics["val"]["loss"] < 0.8 * module.metrics_before["loss"]


def test_muon_is_refused_where_matrices_are_not_whole() -> None:
    full, lora = BackboneSettings(pretrained="gpt2"), BackboneSettings(pretrained="gpt2", tuning="lora")
    check_optimizer(MUON, full, SingleDeviceStrategy())
    check_optimizer(MUON, full, DDPStrategy())
    check_optimizer(OptimizerSettings(), lora, ModelParallelStrategy())
    with pytest.raises(UserError, match=r"name muon with `--model.backbone.tuning lora`: .* Use adamw"):
        check_optimizer(MUON, lora, SingleDeviceStrategy())
    with pytest.raises(UserError, match=r"name muon with ModelParallelStrategy: it needs whole weight matrices"):
        check_optimizer(MUON, full, ModelParallelStrategy())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"momentum": 0.9}, "only Muon has a momentum"),
        ({"name": "muon", "momentum": 1.0}, "momentum 1.0: expected at least 0 and below 1"),
    ],
)
def test_momentum_is_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        OptimizerSettings(**settings)


def test_identities_of_earlier_versions_still_match() -> None:
    names = {"lr", "weight_decay", "betas", "eps", "schedule", "min_lr_ratio", "warmup_steps", "warmup_ratio"}
    assert OptimizerSettings().identity().keys() == names
    assert MUON.identity().keys() == {*names, "name", "momentum"}
