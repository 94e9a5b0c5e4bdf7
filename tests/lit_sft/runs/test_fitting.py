"""Runs made, resumed and tested from Python: the same files as the commands write, and nothing else is printed."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_sft.runs.fitting import resume, train
from lit_sft.runs.testing import score_run
from lit_sft.settings.reading import read_settings
from tests.conftest import MODELS, alpaca_rows


@pytest.fixture
def config(write: Callable[..., str], tokenizer_folder: str, tmp_path: Path) -> str:
    """A run of two steps, and 24 records."""
    settings: dict[str, Any] = {
        "model": {"backbone": {"config": MODELS["gpt2"], "tokenizer": tokenizer_folder}},
        "data": {"train": write("rows.jsonl", alpaca_rows(24)), "test_fraction": 0.2, "template": "chatml"},
        "trainer": {"max_steps": 2, "accelerator": "cpu", "enable_progress_bar": False},
        "run": {"root": str(tmp_path / "runs"), "name": "tiny"},
    }
    return write("tiny.yaml", yaml.safe_dump(settings))


def test_a_run_is_trained_resumed_and_scored_from_python(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    level, hook, filters = logging.getLogger("lightning.pytorch").level, threading.excepthook, list(warnings.filters)
    run = train(read_settings(config))
    assert (run.checkpoints / "last.ckpt").is_file()
    assert (run.model / "model.safetensors").is_file()
    assert resume(run.folder, {"trainer.max_steps": 3}) == run
    result = score_run(run.folder, {"model.generation.max_new_tokens": 4})
    assert result["metrics"]["test/loss"] > 0
    assert result["answers"]["rows"] == result["test_rows"]["of"]
    assert "step 3" in capsys.readouterr().out
    assert logging.getLogger("lightning.pytorch").level == level
    assert (threading.excepthook, list(warnings.filters)) == (hook, filters)
