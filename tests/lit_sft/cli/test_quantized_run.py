"""The commands on a run with a quantised base: all of them, and transformers and peft, give the same answers."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import yaml
from gguf import GGUFReader
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from lit_sft.models.quantization import Quantization, dequantize, quantize
from tests.conftest import MODELS
from tests.lit_sft.cli.conftest import Write, run

BUNDLED = str(Path(__file__).parents[3] / "examples" / "tokenizer")


@pytest.fixture
def base(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> str:
    """A Llama with weights so large that its answers differ."""
    torch.manual_seed(0)
    settings = MODELS["llama"] | {"vocab_size": 259, "bos_token_id": None, "eos_token_id": 258}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings))
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3) if parameter.dim() > 1 else None
    tokenizer.save_pretrained(tmp_path / "base")
    model.save_pretrained(tmp_path / "base")
    return str(tmp_path / "base")


def answer(model: Any, prompt: str, tokenizer: PreTrainedTokenizerFast) -> str:
    """Greedy, by transformers alone."""
    ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
    settings = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": 258, "pad_token_id": 256}
    made = model.eval().generate(ids, attention_mask=torch.ones_like(ids), **settings)
    return str(tokenizer.decode(made[0, ids.shape[1] :])).removesuffix("<|im_end|>")


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("kind", get_args(Quantization))
def test_fit_test_chat_and_exports_answer_alike(
    kind: Any, config: dict[str, Any], base: str, root: Path, write: Write, tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    config["model"]["backbone"] = {"pretrained": base, "tuning": "lora", "quantization": kind, "lora": {"rank": 2}}
    config["model"] |= {"optimizer": {"lr": 1e-2}, "generation": {"max_new_tokens": 6}}
    run("fit", "--config", write("quantized.yaml", yaml.safe_dump(config)))
    folder = root / "tiny" / "version_0"
    run("test", str(folder))
    run("export", str(folder))
    run("export", str(folder), "--merge")
    merged = AutoModelForCausalLM.from_pretrained(folder / "merged")
    rounded = AutoModelForCausalLM.from_pretrained(base)
    quantize(rounded, kind)
    dequantize(rounded)
    adapted = PeftModel.from_pretrained(rounded, folder / "model")
    rows = [json.loads(line) for line in (folder / "test_answers.jsonl").read_text().splitlines()]
    assert len({row["answer"] for row in rows}) > 1
    for row in rows:
        assert row["answer"] == answer(merged, row["prompt"], tokenizer) == answer(adapted, row["prompt"], tokenizer)
    question = rows[0]["prompt"].removeprefix("<|im_start|>user\n").partition("<|im_end|>")[0]
    said = []
    for model in (folder, folder / "model", folder / "merged"):
        capsys.readouterr()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{question}\n".encode())))
        run("chat", str(model), "--temperature", "0", "--max_new_tokens", "6")
        said.append(capsys.readouterr().out)
    assert said[0].strip()
    assert said[0] == said[1] == said[2]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("kind", get_args(Quantization))
def test_gguf_has_the_merged_weights(
    kind: Any, config: dict[str, Any], root: Path, write: Write, tmp_path: Path
) -> None:  # fmt: skip
    tokenizer = PreTrainedTokenizerFast.from_pretrained(BUNDLED)
    settings = MODELS["llama"] | {"vocab_size": len(tokenizer), "bos_token_id": None, "eos_token_id": 0}
    AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings)).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    config["model"]["backbone"] = {
        "pretrained": str(tmp_path / "base"), "tuning": "lora", "quantization": kind, "lora": {"rank": 2}
    }  # fmt: skip
    config["data"]["template"] = "plain"
    run("fit", "--config", write("quantized.yaml", yaml.safe_dump(config)))
    folder = root / "tiny" / "version_0"
    run("export", str(folder), "--merge")
    run("export", str(folder), "--gguf", "f32")
    merged = AutoModelForCausalLM.from_pretrained(folder / "merged")
    tensors = {tensor.name: tensor.data for tensor in GGUFReader(folder / "gguf_f32" / "model.gguf").tensors}
    for ours, theirs in (("attn_v", "self_attn.v_proj"), ("ffn_down", "mlp.down_proj")):
        weight = merged.get_parameter(f"model.layers.0.{theirs}.weight").detach().numpy()
        assert np.array_equal(tensors[f"blk.0.{ours}.weight"], weight)
