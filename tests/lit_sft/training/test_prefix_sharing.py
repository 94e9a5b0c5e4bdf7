from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from data_modules.batching.batch import Batch
from data_modules.sft_data_module import SFTDataModule
from lit_sft.training import module as training_module
from lit_sft.training import prefix_sharing
from tests.conftest import MODELS, alpaca_rows, chat_rows
from tests.training import make_module, make_trainer, train

MakeData = Callable[..., SFTDataModule]

LONGROPE = {
    "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4,
    "original_max_position_embeddings": 256, "factor": 2.0,
}  # fmt: skip


@pytest.fixture
def remarks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(prefix_sharing, "rank_zero_info", found.append)
    return found


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """The micro-batches of evaluations."""
    batches: list[Batch] = []
    token_nll = training_module.token_nll

    def noted(backbone: torch.nn.Module, batch: Batch) -> torch.Tensor:
        batches.append(batch)
        return token_nll(backbone, batch)

    monkeypatch.setattr(training_module, "token_nll", noted)
    return batches


def num_computed(batches: list[Batch]) -> int:
    return sum(len(batch.tree.computed) if batch.tree else batch.input_ids.numel() for batch in batches)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_an_evaluation_shares_beginnings_and_has_the_same_metrics(
    name: str, dropout: float, make_data: MakeData, tmp_path: Path, remarks: list[str], scored: list[Batch]
) -> None:
    def run(**settings: Any) -> tuple[dict[str, float], dict[str, Any], int]:
        scored.clear()
        data = make_data(chat_rows(20), test_fraction=0.5, samples="answer", **settings)
        module = make_module(name, dropout=dropout)
        make_trainer(tmp_path).test(module, datamodule=data, verbose=False)
        return module.metrics["test"], module.records, num_computed(scored)

    metrics, records, computed = run()
    assert remarks == []
    for settings in ({"share_prefixes": False}, {"eval_batch_size": 1}, {"packing": False}, {"token_budget": 90}):
        other_metrics, other_records, other_computed = run(**settings)
        assert metrics == pytest.approx(other_metrics, rel=1e-6)
        assert records.keys() == other_records.keys()
        for origin, sums in records.items():
            other = other_records[origin]
            assert sums.tokens == other.tokens
            assert sums.nats == pytest.approx(other.nats, rel=1e-6)
        assert computed < other_computed


def test_examples_are_planned_by_prefix_across_batches(
    make_data: MakeData, write: Callable[..., str], tmp_path: Path, scored: list[Batch]
) -> None:
    """By length, the first turns of all conversations would be together."""
    turns = [
        {"role": role, "content": "abc " * 3 * turn + "end"} for turn in range(3) for role in ("user", "assistant")
    ]
    rows = [
        {"messages": [{"role": "system", "content": f"{number}"}, *turns[: 2 * num]]}
        for num in (1, 2, 3)
        for number in range(5)
    ]
    data = make_data(alpaca_rows(3), val=write("val.jsonl", rows), eval_batch_size=3)
    make_trainer(tmp_path).validate(make_module(), datamodule=data, verbose=False)
    lines = [sorted(int(origin.rpartition(":")[2]) for origin in batch.origins) for batch in scored]
    assert sorted(lines) == [[number, number + 5, number + 10] for number in range(1, 6)]
    assert all(batch.tree is not None for batch in scored)


@pytest.mark.parametrize("limit", [2, 0.5])
def test_with_a_limit_the_same_examples_are_evaluated(
    limit: float, make_data: MakeData, tmp_path: Path, scored: list[Batch]
) -> None:
    origins = []
    for shares in (True, False):
        scored.clear()
        data = make_data(chat_rows(20), val_fraction=0.5, eval_batch_size=2, share_prefixes=shares)
        trainer = make_trainer(tmp_path, limit_val_batches=limit)
        trainer.validate(make_module(), datamodule=data, verbose=False)
        origins.append([batch.origins for batch in scored])
        rows, tokens = data.evaluated("val", limit)
        assert rows == sum(len(batch.origins) for batch in scored)
        assert tokens == sum(sum(batch.lengths) for batch in scored)
    assert origins[0] == origins[1]
    num_batches = -(-len(data.stores["val"]) // 2)
    assert 0 < len(origins[0]) == (limit if limit == 2 else int(num_batches * limit)) < num_batches


def test_dropout_is_named_if_it_prevents_sharing_in_training(
    make_data: MakeData, tmp_path: Path, remarks: list[str]
) -> None:
    data = make_data(chat_rows(6), val_fraction=0.4)
    module = train(data, tmp_path, make_module(dropout=0.5))
    (remark,) = remarks
    assert "dropout differs between documents, so in training" in remark
    assert module.shares_prefixes == {"val", "test"}
    assert not any(batch.tree for batches in data.train_dataloader() for batch in batches)
    remarks.clear()
    train(make_data(chat_rows(6), share_prefixes=False), tmp_path, make_module(dropout=0.5))
    train(make_data(chat_rows(6)), tmp_path, make_module())
    assert remarks == []


def test_embeddings_that_depend_on_the_length_are_named_and_nothing_is_shared(
    make_data: MakeData, tmp_path: Path, remarks: list[str]
) -> None:
    config = MODELS["llama"] | {"rope_parameters": LONGROPE}
    data = make_data(chat_rows(6), val_fraction=0.4)
    module = train(data, tmp_path, make_module("llama", backbone={"config": config}))
    assert ["rotary embeddings depend on a document's length" in remark for remark in remarks] == [True]
    assert module.shares_prefixes == frozenset()
    assert not any(batch.tree for batches in data.train_dataloader() for batch in batches)
