"""Configurations that must give the same result. What fails here is wrong, whatever else passes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from data_modules.batching.batch import collate
from data_modules.rendering.masking import MASKS
from data_modules.sft_data_module import SFTDataModule
from lit_sft.models.loss import token_nll
from lit_sft.training.module import LitCausalLM
from lit_sft.training.sharding import score
from tests.conftest import MODELS, alpaca_rows, chat_rows
from tests.training import make_module, make_trainer, train

MakeData = Callable[..., SFTDataModule]


class GradientLog(LitCausalLM):
    """Keeps the gradients of every optimiser step."""

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.gradients = [
            *getattr(self, "gradients", []),
            [p.grad.clone() for p in self.parameters() if p.requires_grad],
        ]  # type: ignore[union-attr]


def gradients(data: SFTDataModule, folder: Path, tuning: str = "full", **settings: Any) -> list[list[torch.Tensor]]:
    # a step so small that it changes nothing: AdamW would turn rounding into differences of a whole step
    module = make_module(tuning=tuning, lr=1e-30)
    module.__class__ = GradientLog
    train(data, folder, module, **settings)
    return module.gradients  # type: ignore[return-value]


@pytest.mark.parametrize("reduction", ["token", "sample", "turn"])
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_batch_of_8_equals_4_x_2_equals_8_x_1(make_data: MakeData, tmp_path: Path, tuning: str, reduction: str) -> None:
    rows = chat_rows(14)
    settings = {"mask": "firefly_multi_turn", "reduction": reduction, "shuffle": False, "template": "plain"}
    steps = [
        gradients(make_data(rows, batch_size=size, **settings), tmp_path, tuning, accumulate_grad_batches=accumulate)
        for size, accumulate in ((8, 1), (4, 2), (1, 8))
    ]
    assert [len(run) for run in steps] == [2, 2, 2]  # the second step is a partial window of 6 rows
    for whole, other in itertools.product(steps[:1], steps[1:]):
        for a, b in zip(itertools.chain(*whole), itertools.chain(*other), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_a_micro_batch_without_supervised_tokens_changes_nothing(
    make_data: MakeData, tmp_path: Path, write: Callable[..., str]
) -> None:
    texts, chats = write("texts.jsonl", [{"text": "nothing to answer"}]), write("chats.jsonl", alpaca_rows(7))
    mixed = {"mask": "output_only", "shuffle": False, "template": "chatml", "val_fraction": 0.0, "test_fraction": 0.0}
    tokenizer = make_data(alpaca_rows(1)).tokenizer

    def steps(files: list[str], batch_size: int, accumulate: int) -> list[list[torch.Tensor]]:
        data = SFTDataModule(files, tokenizer=tokenizer, batch_size=batch_size, **mixed)  # type: ignore[arg-type]
        return gradients(data, tmp_path, accumulate_grad_batches=accumulate)

    (without,) = steps([chats], 8, 1)
    for batch_size, accumulate in ((8, 1), (1, 8), (2, 4)):
        (with_text,) = steps([texts, chats], batch_size, accumulate)
        for a, b in zip(without, with_text, strict=True):
            assert torch.isfinite(b).all()
            torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def weighted_rows(count: int) -> list[dict[str, Any]]:
    """Conversations whose answers have weights."""
    rows = chat_rows(count)
    for n, row in enumerate(rows):
        for i, pair in enumerate(row["conversation"]):
            pair["weight"] = (0.25, 1, 0.5, 0.75)[(n + i) % 4]
    return rows


@pytest.mark.parametrize("reduction", ["token", "sample", "turn"])
def test_weights_of_messages_depend_on_neither_packing_nor_accumulation(
    make_data: MakeData, tmp_path: Path, reduction: str
) -> None:
    settings = {"mask": "firefly_multi_turn", "reduction": reduction, "shuffle": False, "template": "plain"}

    def steps(size: int, accumulate: int, packing: bool, rows: list[dict[str, Any]]) -> list[list[torch.Tensor]]:
        data = make_data(rows, batch_size=size, packing=packing, **settings)
        return gradients(data, tmp_path, accumulate_grad_batches=accumulate)

    whole = steps(8, 1, True, weighted_rows(14))
    for size, accumulate, packing in ((4, 2, True), (1, 8, True), (8, 1, False), (2, 4, False)):
        for a, b in zip(itertools.chain(*whole), itertools.chain(*steps(size, accumulate, packing, weighted_rows(14))),
                        strict=True):  # fmt: skip
            torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    unweighted = steps(8, 1, True, chat_rows(14))
    assert any(not torch.allclose(a, b, atol=1e-4) for a, b in zip(whole[0], unweighted[0], strict=True))


def test_loss_is_the_mean_weighted_by_messages(make_data: MakeData, tmp_path: Path) -> None:
    data = make_data(weighted_rows(6), mask="firefly_multi_turn", batch_size=6, template="plain")
    module = make_module(lr=1e-30)
    train(data, tmp_path, module)
    total, weight = 0.0, 0.0
    for example, row in zip(data.stores["train"], weighted_rows(6), strict=True):
        batch = collate([example], mask=MASKS["firefly_multi_turn"])
        nll = token_nll(module.backbone, batch)
        turns = batch.turns.flatten()[batch.targets].tolist()
        shares = [row["conversation"][turn // 2]["weight"] for turn in turns]
        total += sum(share * float(nats) for share, nats in zip(shares, nll, strict=True))
        weight += sum(shares)
    assert float(module.trainer.callback_metrics["train/loss"]) == pytest.approx(total / weight, rel=1e-5)


def test_mean_of_means_would_fail_here(make_data: MakeData, tmp_path: Path) -> None:
    """The previous test is sensitive: averaging per-micro-batch means gives different gradients."""

    class MeanOfMeans(GradientLog):
        def training_step(self, micro_batches: Any, batch_idx: int) -> torch.Tensor:  # type: ignore[override]
            (batch,) = micro_batches
            total, _ = score(self.objective, self.backbone, batch)
            return total / batch.weights.sum()

    def steps(batch_size: int, accumulate: int) -> list[torch.Tensor]:
        module = make_module()
        module.__class__ = MeanOfMeans
        data = make_data(alpaca_rows(8), batch_size=batch_size, shuffle=False)
        train(data, tmp_path, module, accumulate_grad_batches=accumulate)
        return module.gradients[0]  # type: ignore[index,return-value]

    assert max(float((a - b).abs().max()) for a, b in zip(steps(8, 1), steps(1, 8), strict=True)) > 1e-3


def test_validation_metrics_depend_on_neither_batch_size_nor_order_nor_training_mask(
    make_data: MakeData, tmp_path: Path
) -> None:
    rows = chat_rows(30)

    def metrics(rows: list[dict[str, Any]], **settings: Any) -> dict[str, float]:
        data = make_data(rows, val_fraction=0.4, **settings)
        module = make_module(seed=5)
        make_trainer(tmp_path).validate(module, datamodule=data, verbose=False)
        return {key: value for key, value in module.metrics["val"].items() if key != "loss"}

    reference = metrics(rows, eval_batch_size=8)
    assert {f"nll/{mask}" for mask in MASKS} <= reference.keys()
    for mask in MASKS:
        assert metrics(rows, eval_batch_size=1, mask=mask) == pytest.approx(reference, rel=1e-6)
    assert metrics(rows[::-1], eval_batch_size=3) == pytest.approx(reference, rel=1e-6)


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_packed_equals_padded(make_data: MakeData, tmp_path: Path, tuning: str, name: str) -> None:
    def run(packing: bool) -> tuple[list[list[torch.Tensor]], dict[str, float]]:
        data = make_data(
            chat_rows(20), val_fraction=0.3, mask="whole_sequence", batch_size=3, packing=packing, template="plain"
        )
        module = make_module(name, tuning=tuning, lr=1e-30)
        module.__class__ = GradientLog
        train(data, tmp_path, module, accumulate_grad_batches=2)
        return module.gradients, module.metrics["val"]  # type: ignore[return-value]

    (packed, packed_metrics), (padded, padded_metrics) = run(True), run(False)
    assert packed_metrics == pytest.approx(padded_metrics, rel=1e-6)
    for a, b in zip(itertools.chain(*packed), itertools.chain(*padded), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("budget", [16384, 150])
def test_shared_prefixes_change_no_gradient_and_no_metric(
    make_data: MakeData, tmp_path: Path, budget: int, name: str
) -> None:
    def run(shares: bool) -> tuple[list[list[torch.Tensor]], dict[str, float]]:
        data = make_data(
            chat_rows(20), val_fraction=0.3, mask="firefly_multi_turn", reduction="turn", batch_size=6,
            template="chatml", share_prefixes=shares, token_budget=budget,
        )  # fmt: skip
        module = make_module(name, lr=1e-30)
        module.__class__ = GradientLog
        train(data, tmp_path, module, accumulate_grad_batches=2)
        trees = [micro_batch.tree for batch in data.train_dataloader() for micro_batch in batch]
        assert any(trees) == shares
        return module.gradients, module.metrics["val"]  # type: ignore[return-value]

    (shared, shared_metrics), (packed, packed_metrics) = run(True), run(False)
    assert shared_metrics == pytest.approx(packed_metrics, rel=1e-6)
    for a, b in zip(itertools.chain(*shared), itertools.chain(*packed), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_batch_split_by_token_budget_equals_the_whole_batch(
    make_data: MakeData, tmp_path: Path, tuning: str, packing: bool
) -> None:
    def run(**settings: Any) -> tuple[list[list[torch.Tensor]], dict[str, float], list[int]]:
        data = make_data(chat_rows(20), val_fraction=0.3, batch_size=4, template="plain", **settings)
        module = make_module(tuning=tuning, lr=1e-30)
        module.__class__ = GradientLog
        train(data, tmp_path, module, accumulate_grad_batches=2)
        return (
            module.gradients,
            module.metrics["val"],
            [len(micro_batches) for micro_batches in data.train_dataloader()],
        )  # type: ignore[return-value]

    whole, whole_metrics, whole_sizes = run(packing=True)
    micro_batches, metrics, num_sizes = run(packing=packing, token_budget=120)
    assert set(whole_sizes) == {1}
    assert max(num_sizes) > 1
    assert metrics == pytest.approx(whole_metrics, rel=1e-6)
    for a, b in zip(itertools.chain(*whole), itertools.chain(*micro_batches), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mask", list(MASKS))
def test_validation_loss_is_the_metric_of_the_training_mask(make_data: MakeData, tmp_path: Path, mask: str) -> None:
    module = make_module()
    data = make_data(chat_rows(30), val_fraction=0.4, mask=mask)
    make_trainer(tmp_path).validate(module, datamodule=data, verbose=False)
    assert module.metrics["val"]["loss"] == pytest.approx(module.metrics["val"][f"nll/{mask}"], rel=1e-6)


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize("step", [3, 4, 6])
def test_resuming_between_steps_equals_an_uninterrupted_run(make_data: MakeData, tmp_path: Path, step: int) -> None:
    def run(**settings: Any) -> dict[str, torch.Tensor]:
        data = make_data(alpaca_rows(16), batch_size=2, seed=3)  # eight batches, four steps an epoch
        module = make_module(schedule="linear")
        trainer = make_trainer(tmp_path, max_epochs=2, accumulate_grad_batches=2, enable_checkpointing=True, callbacks=[
            ModelCheckpoint(tmp_path / "c", every_n_train_steps=1, save_top_k=-1, filename="{step}")
        ])  # fmt: skip
        trainer.fit(module, datamodule=data, **settings)
        return {name: value.clone() for name, value in module.state_dict().items()}

    straight = run()
    checkpoint = tmp_path / f"step={step}.ckpt"
    (tmp_path / "c" / checkpoint.name).rename(checkpoint)
    resumed = run(ckpt_path=checkpoint, weights_only=True)
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_same_seed_same_weights_and_other_seed_other_weights(make_data: MakeData, tmp_path: Path) -> None:
    def weights(seed: int) -> list[torch.Tensor]:
        data = make_data(alpaca_rows(20), seed=seed, val_fraction=0.2)
        return [p.detach() for p in train(data, tmp_path, make_module(seed=seed)).parameters()]

    first = weights(1)
    assert all(torch.equal(a, b) for a, b in zip(first, weights(1), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, weights(2), strict=True))
