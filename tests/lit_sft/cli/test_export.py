"""The export command: dtypes, and what it says and refuses."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from gguf import GGUFReader
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from lit_sft.__main__ import main
from tests.lit_sft.cli.conftest import Write, run

BUNDLED = str(Path(__file__).parents[3] / "examples" / "tokenizer")


def test_another_dtype_has_a_folder_of_its_own_beside_the_model_of_the_run(
    path: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("fit", "--config", path)
    folder = root / "tiny" / "version_0"
    run("export", str(folder), "--dtype", "bfloat16")
    assert f"-> {folder / 'model_bfloat16'}" in capsys.readouterr().out
    full = AutoModelForCausalLM.from_pretrained(folder / "model").state_dict()
    half = AutoModelForCausalLM.from_pretrained(folder / "model_bfloat16").state_dict()
    assert all(torch.equal(half[name], value.bfloat16()) for name, value in full.items())
    assert json.loads((folder / "model_bfloat16" / "config.json").read_text())["dtype"] == "bfloat16"
    assert main(["export", str(folder), "--dtype", "int8"]) == 2
    assert "--dtype: invalid choice: 'int8'" in capsys.readouterr().err


def test_gguf_merges_adapters_and_says_what_to_run(
    config: dict[str, Any], root: Path, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    config["model"]["backbone"] |= {"tokenizer": BUNDLED, "tuning": "lora", "lora": {"rank": 2}}
    config["data"]["template"] = "plain"
    run("fit", "--config", write("lora.yaml", yaml.safe_dump(config)))
    folder = root / "tiny" / "version_0"
    capsys.readouterr()
    run("export", str(folder), "--gguf")
    said = capsys.readouterr().out.splitlines()
    written = folder / "gguf_f16"
    assert said[0].endswith(f"-> {written}")
    assert said[1:] == [
        "the adapters are merged into the weights",
        "llama.cpp splits 's after a full-width sign differently",
        f"next    llama-server -m {written / 'model.gguf'}",
        f"or      ollama create NAME -f {written / 'Modelfile'}",
    ]
    assert {path.name for path in written.iterdir()} >= {"model.gguf", "Modelfile", "lit_sft.sha256"}
    run("export", str(folder), "--merge")
    merged = load_file(folder / "merged" / "model.safetensors")["transformer.h.0.attn.c_attn.weight"]
    tensors = {tensor.name: tensor.data for tensor in GGUFReader(written / "model.gguf").tensors}
    assert torch.equal(torch.tensor(tensors["blk.0.attn_qkv.weight"]), merged.T.half())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gguf", "--dtype", "float16"], "--dtype: the type of a GGUF file is that of --gguf; leave one of the two"),
        (["--gguf", "q4_0"], "--gguf: invalid choice: 'q4_0'"),
        (["--gguf"], "--gguf: this tokenizer cannot be written (it has no merges). Supported: byte-level BPE that"),
    ],
)
def test_gguf_that_cannot_be_written_is_refused_in_one_line(
    options: list[str], message: str, path: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("fit", "--config", path)
    folder = root / "tiny" / "version_0"
    capsys.readouterr()
    assert main(["export", str(folder), *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"lit_sft export: {message}")
    assert error.count("\n") == 1
    assert not list(folder.glob("*gguf*"))


def test_missing_package_is_named(
    path: str, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["export", str(root), "--gguf"]) == 2
    assert capsys.readouterr().err == (
        "lit_sft export: --gguf: the package gguf is not installed; `pip install 'lit_sft[gguf]'`.\n"
    )
