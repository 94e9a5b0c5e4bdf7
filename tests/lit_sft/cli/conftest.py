"""A small run for the tests of commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_sft.__main__ import main
from tests.conftest import MODELS, alpaca_rows

Write = Callable[..., str]


@pytest.fixture
def config(write: Write, tokenizer_folder: str, tmp_path: Path) -> dict[str, Any]:
    """A run of two steps."""
    return {
        "seed_everything": 1,
        "model": {
            "backbone": {"config": MODELS["gpt2"], "tokenizer": tokenizer_folder},
            "optimizer": {"lr": 1e-3},
            "generation": {"max_new_tokens": 4},
        },
        "data": {
            "train": write("rows.jsonl", alpaca_rows(24)),
            "val_fraction": 0.2,
            "test_fraction": 0.2,
            "template": "chatml",
        },
        "trainer": {"max_steps": 2, "accelerator": "cpu", "enable_progress_bar": False, "log_every_n_steps": 1},
        "run": {"root": str(tmp_path / "runs"), "name": "tiny"},
    }


@pytest.fixture
def path(config: dict[str, Any], write: Write) -> str:
    return write("tiny.yaml", yaml.safe_dump(config))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def run(*arguments: str) -> None:
    assert main(list(arguments)) == 0
