"""`merge`: the sum of adapters is the sum of what they add to the weights, and what cannot be added up is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM

from data_modules.errors import UserError
from data_modules.sft_data_module import SFTDataModule
from lit_sft.cli.merge import main, merge_adapters
from lit_sft.models.adapters import LoraSettings
from lit_sft.models.backbone import BackboneSettings, build_backbone
from lit_sft.models.quantization import dequantize, quantize
from lit_sft.models.saving import export_model
from lit_sft.runs.opening import open_model
from tests.conftest import byte_tokenizer, chat_rows
from tests.training import save_base

# peft asks for a property that transformers has renamed
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

Save = Callable[..., Path]


@pytest.fixture
def save(make_data: Callable[..., SFTDataModule], tmp_path: Path) -> Save:
    """Exports an adapter with random weights on a base."""
    data = make_data(chat_rows(2))

    def _save(name: str, model: str = "llama", seed: int = 1, quantization: Any = None, **lora: Any) -> Path:
        base = tmp_path / model
        if not base.is_dir():
            save_base(model, base, byte_tokenizer())
        settings = LoraSettings(**({"rank": 2, "alpha": 3.0} | lora))
        how: Any = {"tuning": "lora", "lora": settings, "quantization": quantization}
        backbone = build_backbone(BackboneSettings(str(base), **how), byte_tokenizer())
        draw = torch.Generator().manual_seed(seed)
        for parameter in (p for p in backbone.parameters() if p.requires_grad):
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=draw)
        export_model(backbone, tmp_path / name, data)
        return tmp_path / name

    return _save


def matrices(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().double() for name, value in model.named_parameters() if value.dim() == 2}


def with_adapter(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    """The weights of a model that peft has merged an adapter into."""
    model: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    return matrices(model.merge_and_unload())


def by_hand(base: Path, sources: list[tuple[Path, float]]) -> dict[str, torch.Tensor]:
    """The base plus the weighted sum of all products of factors, one entry after the other, in float64."""
    weights = matrices(AutoModelForCausalLM.from_pretrained(base))
    for folder, weight in sources:
        settings, tensors = (
            json.loads((folder / "adapter_config.json").read_text()),
            load_file(folder / "adapter_model.safetensors"),
        )
        scale = settings["lora_alpha"] / (settings["r"] ** 0.5 if settings["use_rslora"] else settings["r"])
        for name in (name for name in tensors if ".lora_A." in name):
            a, b = tensors[name].double(), tensors[name.replace("lora_A", "lora_B")].double()
            key = name.removeprefix("base_model.model.").replace("lora_A.", "")
            added = sum(torch.outer(b[:, k], a[k]) for k in range(len(a)))
            weights[key] = weights[key] + weight * scale * (added.T if settings["fan_in_fan_out"] else added)  # type: ignore[union-attr]
    return weights


@pytest.mark.parametrize("model", ["gpt2", "llama"])
def test_sum_is_that_of_the_products_whatever_their_ranks_and_scales(model: str, save: Save, tmp_path: Path) -> None:
    sources = [
        (save("a", model), 0.5),
        (save("b", model, seed=2, rank=3, rslora=True), -0.25),
        (save("c", model, seed=3, alpha=7.0), 1.5),
    ]
    expected = by_hand(tmp_path / model, sources)
    main(["merge", *(f"{folder}:{weight}" for folder, weight in sources), "--output", str(tmp_path / "sum")])
    main(["merge", *(f"{f}:{w}" for f, w in sources), "--output", str(tmp_path / "whole"), "--into_base"])
    whole = matrices(AutoModelForCausalLM.from_pretrained(tmp_path / "whole"))
    opened: Any = open_model("sum", str(tmp_path / "sum"), device="cpu").backbone
    for found in (with_adapter(tmp_path / model, tmp_path / "sum"), whole, matrices(opened.merge_and_unload())):
        changed = [name for name in expected if ("attn" in name or "mlp" in name)]
        assert len(changed) >= 8
        for name in found:
            torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-6, msg=name)
    assert json.loads((tmp_path / "sum" / "adapter_config.json").read_text())["r"] == 7


@pytest.mark.parametrize("method", ["linear", "ties"])
def test_other_methods_are_those_of_peft(method: Any, save: Save, tmp_path: Path) -> None:
    folders = [save("a"), save("b", seed=2)]
    theirs: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "llama"), folders[0], "a")
    theirs.load_adapter(folders[1], "b")
    theirs.add_weighted_adapter(["a", "b"], [0.7, -0.2], "sum", combination_type=method, density=0.4)
    theirs.set_adapter("sum")
    merge_adapters([*zip(folders, (0.7, -0.2), strict=True)], tmp_path / "sum", method=method, density=0.4)
    expected, found = matrices(theirs.merge_and_unload()), with_adapter(tmp_path / "llama", tmp_path / "sum")
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-6, msg=name)
    exact = by_hand(tmp_path / "llama", [*zip(folders, (0.7, -0.2), strict=True)])
    assert max(float((found[name] - exact[name]).abs().max()) for name in found) > 0.01


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_dare_drops_the_same_values_every_time_and_scales_up_the_others(
    method: Any, save: Save, tmp_path: Path
) -> None:
    folders = [save("a"), save("b", seed=2)]
    for name in ("one", "two"):
        merge_adapters([(folder, 0.5) for folder in folders], tmp_path / name, method=method, density=0.4)
    one, two, *given = (
        load_file(f / "adapter_model.safetensors") for f in (tmp_path / "one", tmp_path / "two", *folders)
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    for name, value in one.items():
        a, b = (tensors[name] * (0.5 * 3.0 / 2) ** 0.5 / 0.4 for tensors in given)  # the root of weight times scale
        options = torch.stack([0 * a, a, b, a + b if method == "dare_linear" else (a + b) / 2])
        assert bool(((options - value).abs() < 1e-5).any(0).all())
    dropped = torch.cat([value.flatten() == 0 for value in one.values()]).float().mean()
    assert abs(float(dropped) - 0.36) < 0.05


def test_adapters_on_a_quantised_base_are_merged_into_the_weights_they_were_trained_on(
    save: Save, tmp_path: Path
) -> None:
    sources = [(save("a", quantization="nf4"), 0.5), (save("b", quantization="nf4", seed=2), 0.5)]
    merge_adapters(sources, tmp_path / "whole", into_base=True)
    rounded: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "llama")
    quantize(rounded, "nf4")
    dequantize(rounded)
    rounded.save_pretrained(tmp_path / "rounded")
    expected = by_hand(tmp_path / "rounded", sources)
    found = matrices(AutoModelForCausalLM.from_pretrained(tmp_path / "whole"))
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-6, msg=name)
    with pytest.raises(UserError, match=r"its base is not quantised, that of .*a nf4; expected the same"):
        merge_adapters([sources[0], (save("c"), 1.0)], tmp_path / "other")


def test_runs_are_named_and_the_card_has_no_paths(save: Save, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "chat" / "version_3"
    run.mkdir(parents=True)
    save("a").rename(run / "model")
    main(["merge", f"{run}:0.5", f"{save('b', seed=2)}:2", "--output", str(tmp_path / "sum")])
    card = (tmp_path / "sum" / "README.md").read_text()
    assert "| chat/version&#95;3 | 0.5 |\n| b | 2 |" in card
    assert str(tmp_path) not in card
    assert (tmp_path / "sum" / "tokenizer.json").is_file()
    (tmp_path / "sum" / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"adapter_config.json: changed since it was exported"):
        open_model("sum", str(tmp_path / "sum"), device="cpu")


def test_adapters_trained_with_other_templates_are_noted(
    save: Save, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = save("b", seed=2)
    arguments = ["merge", f"{save('a')}:1", f"{other}:1", "--output"]
    main([*arguments, str(tmp_path / "alike")])
    assert "note" not in capsys.readouterr().out
    (other / "chat_template.jinja").write_text("{{ messages }}")
    (other / "lit_sft.sha256").unlink()
    main([*arguments, str(tmp_path / "sum")])
    assert "was trained with another chat template than" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"model": "qwen2"}, r"other: trained on another base model \(.*qwen2\) than .*first"),
        ({"target_modules": ["q_proj"]}, r"other: adapts other layers than .*first, such as base_model"),
        ({"dora": True}, r"other: has use_dora \(True\)\. Only adapters with plain LoRA"),
        (
            {"modules_to_save": ["embed_tokens"]},
            r"other: has modules_to_save .* Only adapters with plain LoRA",
        ),
        ({"rank": 4, "method": "linear"}, r"--method linear: the ranks of the adapters are 2, 4; use cat"),
    ],
)
def test_adapters_that_do_not_add_up_are_refused(
    other: dict[str, Any], message: str, save: Save, tmp_path: Path
) -> None:
    method = other.pop("method", "cat")
    sources = [(save("first"), 0.5), (save("other", seed=2, **other), 0.5)]
    with pytest.raises(UserError, match=message):
        merge_adapters(sources, tmp_path / "sum", method=method)
    assert not (tmp_path / "sum").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x:1"], "x: no adapter"),
        (["{a}"], "expected an adapter and its weight"),
        (["{a}:0"], "a number other than 0"),
        (["{a}:nan"], "a number other than 0"),
        (["{a}:1"], "expected at least two adapters"),
        (["{a}:1", "{a}:1", "--method", "ties", "--density", "1"], "--density 1: expected a share of the values"),
        (["{a}:1", "{a}:1", "--density", "0.4"], "--density 0.4: --method cat keeps all values"),
        (["{a}:1", "{a}:1", "--output", "{a}"], "exists and is not an empty folder"),
    ],
)
def test_wrong_arguments_are_refused(arguments: list[str], message: str, save: Save, tmp_path: Path) -> None:
    given = [argument.format(a=save("a")) for argument in arguments]
    with pytest.raises(UserError, match=message):
        main(["merge", "--output", str(tmp_path / "sum"), *given])


def test_damaged_adapters_are_refused(save: Save, tmp_path: Path) -> None:
    folder, good = save("bad"), save("good")
    tensors = load_file(folder / "adapter_model.safetensors")
    (folder / "lit_sft.sha256").unlink()
    name = next(iter(tensors))
    for changed, message in (
        ({**tensors, name: tensors[name] * float("nan")}, "has weights that are not finite"),
        ({other: value for other, value in tensors.items() if other != name}, "expected only pairs"),
    ):
        save_file(changed, folder / "adapter_model.safetensors")
        with pytest.raises(UserError, match=message):
            merge_adapters([(good, 1.0), (folder, 1.0)], tmp_path / "sum")
