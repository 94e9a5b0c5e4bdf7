"""Adapters are loaded into their base model completely, or refused with the name of the weight."""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from lit_sft.models.adapters import LoraSettings, load_adapter
from lit_sft.models.backbone import BackboneSettings, build_backbone
from tests.conftest import MODELS, byte_tokenizer

State = dict[str, Tensor]
FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"

# peft asks for a property that transformers has renamed
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model and an adapter of it."""
    parent = tmp_path_factory.mktemp("adapters")
    base: Any = build_backbone(BackboneSettings(config=MODELS["llama"]), byte_tokenizer())
    base.save_pretrained(parent / "base")
    settings = BackboneSettings(pretrained=str(parent / "base"), tuning="lora", lora=LoraSettings(rank=2))
    adapted: Any = build_backbone(settings, byte_tokenizer())
    adapted.save_pretrained(parent / "adapter")
    draw = torch.Generator().manual_seed(0)
    weights = load_file(parent / "adapter" / "adapter_model.safetensors")
    weights = {name: torch.randn(value.shape, generator=draw) for name, value in weights.items()}
    save_file(weights, parent / "adapter" / "adapter_model.safetensors", {"format": "pt"})
    return parent


def base_of(folders: Path, tokenizer: PreTrainedTokenizerFast) -> nn.Module:
    return build_backbone(BackboneSettings(pretrained=str(folders / "base")), tokenizer)


def test_every_weight_of_an_adapter_is_loaded(folders: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    saved = load_file(folders / "adapter" / "adapter_model.safetensors")
    adapted = load_adapter(base_of(folders, tokenizer), folders / "adapter")
    loaded = {name.replace(".default", ""): value for name, value in adapted.named_parameters() if "lora_" in name}
    assert loaded.keys() == saved.keys()
    assert all(torch.equal(loaded[name], saved[name]) for name in saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: {n: t for n, t in w.items() if n != FIRST}, rf"1 of its weights is missing: {FIRST}\)"),
        (
            lambda w: w | {FIRST.replace("s.0", "s.7"): w[FIRST].clone()},
            r"the model has no place for 1 .*layers\.7\.self_attn",
        ),
        (lambda w: w | {FIRST: w[FIRST][:1]}, r"size mismatch for .*layers\.0\.self_attn\.q_proj\.lora_A"),
        (
            lambda w: w | {FIRST: w[FIRST] * torch.nan},
            r"q_proj\.lora_A\.default\.weight has 64 NaN or infinite weights",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(
    folders: Path,
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    change: Callable[[State], State],
    message: str,
) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(folders / "adapter", folder)
    weights = load_file(folder / "adapter_model.safetensors")
    save_file(change(weights), folder / "adapter_model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=message) as caught:
        load_adapter(base_of(folders, tokenizer), folder)
    assert str(caught.value).startswith(str(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("config", [{"r": 4}, {"target_modules": ["q_proj"]}, {"peft_type": "NOPE"}, {"r": "many"}])
def test_configs_that_do_not_fit_are_refused(
    folders: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast, config: dict[str, Any]
) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(folders / "adapter", folder)
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(settings | config))
    with pytest.raises(ValueError, match="this adapter does not fit the model") as caught:
        load_adapter(base_of(folders, tokenizer), folder)
    assert "\n" not in str(caught.value)


def test_configs_with_odd_values_are_read_or_refused_in_one_line(
    folders: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    folder, draw, refused = tmp_path / "adapter", random.Random(0), 0
    shutil.copytree(folders / "adapter", folder)
    settings, base = json.loads((folder / "adapter_config.json").read_text()), base_of(folders, tokenizer)
    for _ in range(60):
        odd = draw.choice([None, -1, 0, 3, 1e300, "x", [], {}, [1], {"a": 1}, True, "../..", 2**70])
        (folder / "adapter_config.json").write_text(json.dumps(settings | {draw.choice(list(settings)): odd}))
        try:
            load_adapter(copy.deepcopy(base), folder)
        except ValueError as error:
            refused += 1
            assert str(error).startswith(str(folder))  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
    assert refused > 0
