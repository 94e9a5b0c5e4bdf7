"""Exports in other dtypes: transformers and peft read them back as the rounded weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM

from data_modules.digests import check_digests
from data_modules.sft_data_module import SFTDataModule
from lit_sft.models.adapters import LoraSettings
from lit_sft.models.backbone import BackboneSettings, build_backbone
from lit_sft.models.casting import DTYPES, DtypeName, cast_folder
from lit_sft.models.saving import export_model
from lit_sft.runs.opening import open_model
from tests.conftest import MODELS, byte_tokenizer, chat_rows

MakeData = Callable[..., SFTDataModule]

# peft asks for a property that transformers has renamed
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture
def data(make_data: MakeData) -> SFTDataModule:
    return make_data(chat_rows(2))


def model(name: str) -> nn.Module:
    return build_backbone(BackboneSettings(config=MODELS[name]), byte_tokenizer())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", MODELS)
def test_exported_weights_are_the_rounded_ones_and_the_config_says_so(
    name: str, dtype: DtypeName, data: SFTDataModule, tmp_path: Path
) -> None:
    backbone = model(name)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    export_model(backbone, tmp_path / "m", data, dtype=dtype)
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert backbone.state_dict().keys() == before.keys()
    assert json.loads((tmp_path / "m" / "config.json").read_text())["dtype"] == dtype
    check_digests(tmp_path / "m")
    full = tmp_path / "full"
    export_model(backbone, full, data)
    assert json.loads((full / "config.json").read_text())["dtype"] == "float32"
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (tmp_path / "m", full)]
    assert sizes[0] < 0.55 * sizes[1]
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "m")  # reads the dtype from the config
    state = loaded.state_dict()
    assert {value.dtype for value in loaded.parameters()} == {DTYPES[dtype]}
    assert all(torch.equal(value, before[name].to(DTYPES[dtype])) for name, value in state.items())
    assert state.keys() == before.keys()
    opened = open_model("m", str(tmp_path / "m"), device="cpu").backbone
    assert all(torch.equal(v, before[name].to(DTYPES[dtype]).float()) for name, v in opened.state_dict().items())


def test_adapters_are_exported_in_the_dtype_and_reload(data: SFTDataModule, tmp_path: Path) -> None:
    base: Any = model("qwen2")
    base.save_pretrained(tmp_path / "base")
    settings = BackboneSettings(pretrained=str(tmp_path / "base"), tuning="lora", lora=LoraSettings(rank=2))
    backbone = build_backbone(settings, byte_tokenizer())
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.requires_grad:
                parameter.normal_(generator=torch.Generator().manual_seed(1))
    export_model(backbone, tmp_path / "a", data, dtype="bfloat16")
    export_model(backbone, tmp_path / "full", data)
    halves, full = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("a", "full"))
    assert halves.keys() == full.keys()
    assert all(torch.equal(halves[name], full[name].bfloat16()) for name in full)
    loaded = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "a").state_dict()
    assert all(torch.equal(loaded[n.replace(".weight", ".default.weight")], v.float()) for n, v in halves.items())
    export_model(backbone, tmp_path / "merged", data, merge=True, dtype="float16")
    assert {value.dtype for value in load_file(tmp_path / "merged" / "model.safetensors").values()} == {torch.float16}
    AutoModelForCausalLM.from_pretrained(tmp_path / "merged")


def test_integers_and_buffers_keep_their_dtype_and_shards_their_index(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(4, 3), "steps": torch.tensor([3]), "frequencies": torch.randn(3)}
    save_file({"a": tensors["a"]}, tmp_path / "model-00001-of-00002.safetensors", {"format": "pt"})
    save_file({name: tensors[name] for name in ("steps", "frequencies")}, tmp_path / "model-00002-of-00002.safetensors")
    places = {"a": "model-00001-of-00002.safetensors"} | dict.fromkeys(
        ("steps", "frequencies"), "model-00002-of-00002.safetensors"
    )
    index = {"metadata": {"total_size": 68, "total_parameters": 15}, "weight_map": places}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    cast_folder(tmp_path, "float16", kept=["frequencies"])
    found = {name: value for file in sorted(tmp_path.glob("*.safetensors")) for name, value in load_file(file).items()}
    assert torch.equal(found["a"], tensors["a"].half())
    assert torch.equal(found["steps"], tensors["steps"])
    assert torch.equal(found["frequencies"], tensors["frequencies"])
    written = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert written == index | {"metadata": {"total_size": 4 * 3 * 2 + 8 + 12, "total_parameters": 15}}
    assert not list(tmp_path.glob("*.cast"))


def test_weights_beyond_float16_are_refused_and_nothing_is_written(data: SFTDataModule, tmp_path: Path) -> None:
    backbone = model("llama")
    with torch.no_grad():
        backbone.state_dict()["model.norm.weight"][:2] = 7e4
    with pytest.raises(
        ValueError, match=r"model\.norm\.weight has 2 weights beyond 65504, the largest number of float16\. Export in"
    ):
        export_model(backbone, tmp_path / "m", data, dtype="float16")
    assert not list(tmp_path.glob("*m*"))
    export_model(backbone, tmp_path / "m", data, dtype="bfloat16")
