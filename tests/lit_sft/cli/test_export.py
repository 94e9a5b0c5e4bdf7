"""The export command: dtypes, and what it says and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from lit_sft.__main__ import main
from tests.lit_sft.cli.conftest import run


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
