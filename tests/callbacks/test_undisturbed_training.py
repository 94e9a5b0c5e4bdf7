from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from callbacks import BenchmarkMonitor, LossModeAblation, PerplexityMonitor, RunHealth, SampleGeneration
from tests.conftest import alpaca_rows

SUITE = """
template: chatml
choices: {general: {rows: 3}}
conversations: {rows: {data: PATH}}
answers: {rows answered: {data: PATH, rows: 2, max_new_tokens: 3, temperature: 1.0}}
prompts: {fixed: {prompts: ["Hi"], max_new_tokens: 3}}
"""


@pytest.fixture
def suite(write: Callable[..., str]) -> str:
    return write("suite.yaml", SUITE.replace("PATH", write("held_out.jsonl", alpaca_rows(4))))


def all_five(suite: str) -> list[Callback]:
    samples = SampleGeneration(prompts=["Hi"], num_held_out=2, max_new_tokens=4, temperatures=(0.0, 1.0))
    health = RunHealth(loss_spike=3, every_n_steps=1)
    return [samples, PerplexityMonitor(), LossModeAblation(), health, BenchmarkMonitor(suite)]


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_weights_are_bit_identical_with_and_without_callbacks(
    fit: Callable[..., Any], suite: str, dropout: float, accumulate: int
) -> None:
    settings = {"dropout": dropout, "accumulate_grad_batches": accumulate, "max_steps": 3}
    without = fit([], folder="without", **settings).weights()
    after = fit(all_five(suite), folder="with", **settings).weights()
    assert without.keys() == after.keys()
    assert all(torch.equal(without[name], after[name]) for name in without)


def test_weights_are_bit_identical_without_the_check_before_training(fit: Callable[..., Any], suite: str) -> None:
    settings = {"dropout": 0.1, "num_sanity_val_steps": 0}
    without = fit([], folder="without", **settings).weights()
    run = fit(all_five(suite), folder="with", **settings)
    assert all(torch.equal(weight, without[name]) for name, weight in run.weights().items())
    assert sorted({row["step"] for row in run.rows("samples.jsonl")}) == [0, 2, 4]


def test_validating_alone_writes_no_history(make_run: Callable[..., Any], suite: str) -> None:
    trainer, module, data = make_run(all_five(suite))
    trainer.validate(module, datamodule=data, verbose=False)
    assert not [file for file in Path(trainer.default_root_dir).rglob("*.jsonl") if "held_out" not in file.name]


def test_weights_are_bit_identical_with_an_lm_eval_task(
    fit: Callable[..., Any], write: Callable[..., str], tmp_path: Path
) -> None:
    pytest.importorskip("lm_eval")
    items = write("items.json", [{"q": f"{n} + 1?", "options": ["a", "b"], "gold": n % 2} for n in range(3)])
    (tmp_path / "tasks").mkdir()
    task = {
        "task": "sums", "test_split": "test", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": items}},
        "output_type": "multiple_choice", "doc_to_text": "{{q}}", "doc_to_choice": "options", "doc_to_target": "gold",
    }  # fmt: skip
    (tmp_path / "tasks" / "sums.yaml").write_text(json.dumps(task))
    suite = write("suite.yaml", f"template: chatml\nharness: {{sums: {{task: sums, include: {tmp_path / 'tasks'}}}}}")
    without = fit([], folder="without", dropout=0.1).weights()
    run = fit([BenchmarkMonitor(suite)], folder="with", dropout=0.1)
    assert {row["figure"] for row in run.rows("benchmarks.jsonl")} >= {"acc"}
    assert all(torch.equal(weight, without[name]) for name, weight in run.weights().items())
