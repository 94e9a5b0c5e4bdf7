"""GGUF files read back by the gguf package: tensors, hyper-parameters, the tokenizer; Ollama's Modelfile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from gguf.quants import dequantize

from data_modules.digests import check_digests
from data_modules.encoding.tokenizers import load_tokenizer
from data_modules.sft_data_module import SFTDataModule
from lit_sft.gguf.modelfile import modelfile_of
from lit_sft.gguf.writing import GGUFType, export_gguf
from lit_sft.models.backbone import BackboneSettings, build_backbone
from lit_sft.models.saving import exported_tokenizer
from tests.conftest import MODELS, alpaca_rows, chat_rows

MakeData = Callable[..., SFTDataModule]

BUNDLED = str(Path(__file__).parents[3] / "examples" / "tokenizer")


@pytest.fixture
def data(make_data: MakeData) -> SFTDataModule:
    return make_data(chat_rows(2), tokenizer=load_tokenizer(BUNDLED))


def model(data: SFTDataModule, config: dict[str, Any]) -> Any:
    return build_backbone(BackboneSettings(config=config), data.tokenizer)


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields and tensors, the latter in float32, of a file."""
    reader = GGUFReader(folder / "model.gguf")
    fields = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {
        t.name: (t.tensor_type.name, dequantize(t.data, t.tensor_type) if t.data.dtype == np.uint8 else t.data)
        for t in reader.tensors
    }
    return fields, tensors


def test_weights_of_gpt2_are_transposed_and_a_tied_head_is_written_once(data: SFTDataModule, tmp_path: Path) -> None:
    backbone = model(data, MODELS["gpt2"])
    export_gguf(backbone, tmp_path / "g", data, "f32")
    fields, tensors = read(tmp_path / "g")
    state = backbone.state_dict()
    assert {kind for kind, _ in tensors.values()} == {"F32"}
    qkv = state["transformer.h.1.attn.c_attn.weight"]
    assert np.array_equal(tensors["blk.1.attn_qkv.weight"][1], qkv.T.numpy())
    assert np.array_equal(tensors["token_embd.weight"][1], state["transformer.wte.weight"].numpy())
    assert "output.weight" not in tensors
    assert len(tensors) == len(list(backbone.parameters()))
    names = {"context_length": 512, "embedding_length": 32, "block_count": 2, "feed_forward_length": 128}
    assert {name: fields[f"gpt2.{name}"] for name in names} == names
    assert fields["general.architecture"] == "gpt2"
    assert fields["tokenizer.ggml.pre"] == "gpt-2"
    assert fields["tokenizer.ggml.eos_token_id"] == fields["tokenizer.ggml.eot_token_id"] == data.end_token_id == 2
    assert fields["tokenizer.ggml.bos_token_id"] == data.tokenizer.eos_token_id == 0  # there is no bos
    assert (fields["tokenizer.ggml.add_bos_token"], fields["tokenizer.ggml.add_eos_token"]) == (False, False)
    assert fields["tokenizer.chat_template"] == exported_tokenizer(data).chat_template
    check_digests(tmp_path / "g")


def test_rows_of_llama_queries_alternate_between_the_halves_of_a_head(data: SFTDataModule, tmp_path: Path) -> None:
    backbone = model(data, MODELS["llama"])  # 4 heads and 2 of keys, of size 8
    export_gguf(backbone, tmp_path / "g", data, "f32")
    _, tensors = read(tmp_path / "g")
    for letter, heads in (("q", 4), ("k", 2)):
        weight = backbone.state_dict()[f"model.layers.0.self_attn.{letter}_proj.weight"]
        order = [8 * head + row + half for head in range(heads) for row in range(4) for half in (0, 4)]
        assert np.array_equal(tensors[f"blk.0.attn_{letter}.weight"][1], weight[order].numpy())
    value = backbone.state_dict()["model.layers.0.self_attn.v_proj.weight"]
    assert np.array_equal(tensors["blk.0.attn_v.weight"][1], value.numpy())


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_matrices_are_rounded_and_vectors_stay_float32(kind: GGUFType, data: SFTDataModule, tmp_path: Path) -> None:
    backbone = model(data, MODELS["gpt2"] | {"n_inner": 80})  # 80 is no multiple of 32
    export_gguf(backbone, tmp_path / "g", data, kind)
    fields, tensors = read(tmp_path / "g")
    assert fields["general.file_type"] == {"f16": 1, "q8_0": 7}[kind]
    assert tensors["blk.0.attn_norm.weight"][0] == tensors["position_embd.weight"][0] == "F32"
    assert tensors["blk.0.attn_qkv.weight"][0] == tensors["token_embd.weight"][0] == kind.upper()
    assert tensors["blk.0.ffn_down.weight"][0] == "F16"  # its rows have 80 columns
    written, weight = tensors["blk.0.attn_qkv.weight"][1], backbone.transformer.h[0].attn.c_attn.weight.detach().T
    if kind == "f16":
        assert np.array_equal(written, weight.half().numpy())
    else:
        blocks = weight.reshape(-1, 32)  # a step is the largest weight of a block divided by 127, in float16
        steps = blocks.abs().amax(1, keepdim=True) / 127
        error = (torch.tensor(written).reshape(-1, 32) - blocks).abs()
        assert (error <= 0.57 * steps).all()
        assert error.max() > 0


def test_weights_beyond_float16_are_refused_and_an_earlier_folder_stays(data: SFTDataModule, tmp_path: Path) -> None:
    backbone = model(data, MODELS["qwen2"])
    export_gguf(backbone, tmp_path / "g", data, "f32")
    (tmp_path / "g" / "notes.txt").write_text("mine")
    before = (tmp_path / "g" / "model.gguf").read_bytes()
    with torch.no_grad():
        backbone.model.layers[0].mlp.up_proj.weight[0, 0] = 1e5
    with pytest.raises(ValueError, match=r"blk\.0\.ffn_up\.weight has 1 weight beyond 65504"):
        export_gguf(backbone, tmp_path / "g", data, "f16")
    assert (tmp_path / "g" / "model.gguf").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir() if "g" in path.name) == ["g"]
    export_gguf(backbone, tmp_path / "g", data, "f32")
    assert (tmp_path / "g" / "notes.txt").read_text() == "mine"


ROPE = {"rope_theta": 1e4, "factor": 2.0}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"model_type": "gpt_neox", "num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 32,
             "num_attention_heads": 2},
            "models of type gpt_neox are not supported, only gpt2, llama, qwen2, qwen3",
        ),
        (MODELS["gpt2"] | {"activation_function": "relu"}, "llama.cpp has no gpt2 models with activation_f"),
        (MODELS["gpt2"] | {"scale_attn_by_inverse_layer_idx": True}, "llama.cpp has no gpt2 models with scale_attn_by"),
        (MODELS["llama"] | {"hidden_act": "gelu"}, "llama.cpp has no llama models with hidden_act gelu"),
        (
            MODELS["qwen2"] | {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
            "llama.cpp has no qwen2 models with sliding_attention",
        ),
        (MODELS["qwen2"] | {"rope_parameters": ROPE | {"rope_type": "dynamic"}}, "rotary embeddings of type dynamic"),
    ],
)  # fmt: skip
def test_models_that_llama_cpp_does_not_have_are_refused_in_one_line(
    config: dict[str, Any], message: str, data: SFTDataModule, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=f"^--gguf: {message}") as refusal:
        export_gguf(model(data, config), tmp_path / "g", data, "f32")
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.glob("*g"))


@pytest.mark.parametrize("template", ["chatml", "alpaca", "plain"])
def test_modelfile_has_the_template_in_go(template: str, make_data: MakeData) -> None:
    data = make_data(alpaca_rows(2), tokenizer=load_tokenizer(BUNDLED), template=template)
    lines = modelfile_of(data.encoder.template, "model.gguf").splitlines()
    assert lines[0] == "FROM ./model.gguf"
    assert lines[1].startswith('TEMPLATE """{{ if .System }}')
    assert lines[1].endswith('"""')
    end = {"chatml": "<|im_end|>", "alpaca": "<|endoftext|>", "plain": "<|endoftext|>"}[template]
    assert lines[2:] == [f'PARAMETER stop "{end}"']
    assert lines[1].count("{{ if") + lines[1].count("{{ range") == lines[1].count("{{ end }}")


def test_modelfile_of_a_tokenizers_own_template_says_what_to_check(make_data: MakeData) -> None:
    tokenizer = load_tokenizer(BUNDLED)
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    data = make_data(chat_rows(2), tokenizer=tokenizer, template="tokenizer")
    lines = modelfile_of(data.encoder.template, "model.gguf").splitlines()
    assert lines[0] == "FROM ./model.gguf"
    assert [line for line in lines[1:-1] if not line.startswith("# ")] == []
    assert lines[-1] == 'PARAMETER stop "<|im_end|>"'
