from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor, nn

from callbacks import run_health
from callbacks.run_health import RunHealth
from data_modules.batching.batch import Batch
from lit_sft.models.loss import supervised_loss
from lit_sft.training.module import LitCausalLM


class OwnLoss(LitCausalLM):
    """Trains with the loss of a subclass."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.objective = self.own_loss

    def own_loss(self, backbone: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


class BreaksAtStep(OwnLoss):
    """Returns a NaN training loss in the third step, as a bad record or divergence would."""

    def own_loss(self, backbone: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        total, nll = supervised_loss(backbone, batch)
        return (total * math.nan if self.trainer.global_step == 2 else total), nll


class Watch(Callback):
    """Records the origins of each step's batches, and computes each gradient norm by hand, from the sum of squares."""

    def __init__(self) -> None:
        self.origins: dict[int, list[tuple[str, ...]]] = {}
        self.norms: list[float] = []
        self.logged: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        origins = tuple(origin for micro_batch in batch for origin in micro_batch.origins)
        self.origins.setdefault(trainer.global_step + 1, []).append(origins)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        squares = [float(p.grad.double().square().sum()) for p in pl_module.parameters() if p.grad is not None]
        self.norms.append(math.sqrt(sum(squares)))

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if len(self.norms) > len(self.logged):
            self.logged.append(float(trainer.callback_metrics["train/gradient_norm"]))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_gradient_norm_is_that_of_the_whole_step_before_clipping(fit: Callable[..., Any], accumulate: int) -> None:
    watch = Watch()
    settings = {"accumulate_grad_batches": accumulate, "gradient_clip_val": 1e-3, "val_check_interval": 1.0}
    fit([RunHealth(), watch], max_steps=3, **settings)
    assert watch.logged == pytest.approx(watch.norms, rel=1e-5)
    assert len(watch.norms) == 3
    assert min(watch.norms) > 1e-3


@pytest.mark.parametrize("every", [1, 2])
def test_throughput_counts_tokens_and_leaves_validation_out(
    fit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    clock = [0.0]
    monkeypatch.setattr(run_health.time, "perf_counter", lambda: clock[0])

    class Clock(Callback):
        def __init__(self) -> None:
            self.counts: list[tuple[int, int]] = []
            self.rates: list[tuple[float, ...]] = []

        def on_before_backward(self, *_: Any) -> None:
            clock[0] += 2.0  # a batch takes two seconds

        def on_validation_batch_start(self, *_: Any) -> None:
            clock[0] += 1000.0

        def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            (micro_batch,) = batch
            self.counts.append((micro_batch.num_tokens, int((micro_batch.weights > 0).sum())))
            if trainer.global_step % every == 0:
                names = ("train/tokens_per_second", "train/supervised_tokens_per_second")
                self.rates.append(tuple(float(trainer.logged_metrics[name]) for name in names))

    watch = Clock()
    fit([RunHealth(every_n_steps=every), watch])
    groups = [watch.counts[i : i + every] for i in range(0, 4, every)]
    expected = [tuple(sum(column) / (2.0 * every) for column in zip(*group, strict=True)) for group in groups]
    assert [rate[0] for rate in watch.rates] == pytest.approx([rate[0] for rate in expected])
    assert [rate[1] for rate in watch.rates] == pytest.approx([rate[1] for rate in expected])


def test_shared_tokens_are_those_that_are_not_computed_again(fit: Callable[..., Any]) -> None:
    class Shares(Callback):
        def __init__(self) -> None:
            self.found: list[tuple[float, float]] = []

        def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            (micro_batch,) = batch
            saved = sum(micro_batch.lengths) - sum(micro_batch.tree.lengths)
            self.found.append((float(trainer.logged_metrics["train/shared_tokens"]), saved / micro_batch.num_tokens))

    watch = Shares()
    fit([RunHealth(every_n_steps=1), watch], data={"template": "chatml"})
    assert watch.found
    for logged, expected in watch.found:
        assert logged == pytest.approx(expected)
        assert 0 < logged < 1


def test_tokens_per_second_is_in_the_progress_bar(fit: Callable[..., Any]) -> None:
    assert "train/tokens_per_second" in fit([RunHealth()]).trainer.progress_bar_metrics


def test_a_nan_loss_stops_before_the_weights_change_and_names_the_records(
    fit: Callable[..., Any], make_run: Callable[..., Any]
) -> None:
    good = fit([], max_steps=2, folder="good").weights()
    watch = Watch()
    trainer, module, data = make_run([watch, RunHealth()], module=BreaksAtStep, folder="bad")
    with pytest.raises(ValueError, match="the loss of step 3 ") as caught:
        trainer.fit(module, datamodule=data)
    message = str(caught.value)
    assert "is nan; expected a finite number. Stopped before this step changed the weights." in message
    assert f"records: {', '.join(watch.origins[3][0])}\n" in message
    assert not any(origin in message for origin in set(watch.origins[2][0]) - set(watch.origins[3][0]))
    assert "learning rate 0.001" in message
    assert all(torch.equal(weight, good[name]) for name, weight in module.backbone.state_dict().items())


def test_a_nan_found_late_names_its_own_batch_and_keeps_the_last_good_checkpoint(
    make_run: Callable[..., Any], tmp_path: Path
) -> None:
    watch = Watch()
    saver = ModelCheckpoint(dirpath=tmp_path / "checkpoints", filename="{step}", every_n_train_steps=1, save_last=True)
    settings = {"module": BreaksAtStep, "enable_checkpointing": True, "val_check_interval": 1.0}
    trainer, module, data = make_run([watch, RunHealth(check_every_step=False, every_n_steps=100), saver], **settings)
    with pytest.raises(ValueError, match="the loss of step 3 ") as caught:
        trainer.fit(module, datamodule=data)
    assert f"records: {', '.join(watch.origins[3][0])}\n" in str(caught.value)
    assert "found after the step" in str(caught.value)
    assert "The last checkpoint is kept" in str(caught.value)
    state = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == 2
    assert all(bool(weight.isfinite().all()) for weight in state["state_dict"].values())


def test_a_nan_found_late_stops_before_the_next_validation(make_run: Callable[..., Any]) -> None:
    trainer, module, data = make_run(
        [RunHealth(check_every_step=False, every_n_steps=100)], module=BreaksAtStep, val_check_interval=4
    )
    with pytest.raises(ValueError, match="the loss of step 3 "):
        trainer.fit(module, datamodule=data)
    assert module.metrics["val"] is module.metrics_before


def test_rows_with_non_finite_loss_are_distinguished_from_the_others(make_run: Callable[..., Any]) -> None:
    class BadToken(Callback):
        """Puts NaN into the input embedding of "7", which only some rows contain."""

        def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            pl_module.backbone.get_submodule("transformer.wte").weight.data[ord("7")] = math.nan  # type: ignore

    watch = Watch()
    settings = {"model": {"tie_word_embeddings": False}, "data": {"shuffle": False, "batch_size": 8}}
    trainer, module, data = make_run([BadToken(), watch, RunHealth()], val_check_interval=1.0, **settings)
    with pytest.raises(ValueError, match="not finite on their own") as caught:
        trainer.fit(module, datamodule=data)
    lines = str(caught.value).splitlines()
    batch = list(watch.origins.values())[-1][-1]
    examples = {example.origin: example for example in data.stores["train"]}
    expected = [origin for origin in batch if ord("7") in examples[origin].input_ids]
    assert 0 < len(expected) < len(batch)
    assert f"  not finite on their own: {', '.join(expected)}" in lines
    assert any("the weights are not finite" in line for line in lines)


def test_an_infinite_gradient_stops_before_the_step(make_run: Callable[..., Any]) -> None:
    class Overflows(Callback):
        def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
            if trainer.global_step == 1:
                next(p for p in pl_module.parameters() if p.grad is not None).grad.fill_(math.inf)  # type: ignore

    trainer, module, data = make_run([Overflows(), RunHealth()])
    with pytest.raises(ValueError, match="gradient of step 2 has norm inf although the loss is finite"):
        trainer.fit(module, datamodule=data)
    assert all(bool(weight.isfinite().all()) for weight in module.backbone.state_dict().values())


def test_fp16_overflows_are_counted_as_skipped_steps_and_do_not_stop(fit: Callable[..., Any]) -> None:
    class Overflows(Callback):
        def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
            if trainer.fit_loop.batch_idx == 1:
                next(p for p in pl_module.parameters() if p.grad is not None).grad.fill_(math.inf)  # type: ignore

    class Unfused(LitCausalLM):
        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=1e-3)

    health = RunHealth()
    precision = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=1024.0))
    run = fit([Overflows(), health], module=Unfused, plugins=[precision], val_check_interval=1.0)
    assert health.skipped_steps == 1
    assert float(run.trainer.callback_metrics["train/skipped_steps"]) == 1
    assert float(run.trainer.callback_metrics["train/loss_scale"]) == 512


def test_loss_spike_warning_lists_its_records(make_run: Callable[..., Any]) -> None:
    class Spikes(OwnLoss):
        def own_loss(self, backbone: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
            total, nll = supervised_loss(backbone, batch)
            return total * (9 if self.trainer.global_step == 11 else 1), nll

    watch = Watch()
    settings = {"max_steps": 12, "max_epochs": 9, "val_check_interval": 1.0, "lr": 1e-9}
    trainer, module, data = make_run([watch, RunHealth(loss_spike=4)], module=Spikes, **settings)
    with pytest.warns(UserWarning, match=r"a batch of step 12 has loss .* times the median") as caught:
        trainer.fit(module, datamodule=data)
    (message,) = [str(warning.message) for warning in caught if "RunHealth" in str(warning.message)]
    assert ", ".join(watch.origins[12][0]) in message


def test_batch_without_supervised_tokens_is_not_a_failure(fit: Callable[..., Any]) -> None:
    class Unsupervised(OwnLoss):
        def own_loss(self, backbone: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
            if self.trainer.global_step == 1:
                batch.weights.zero_()
                batch.targets, batch.tree = batch.targets[:0], None
            return supervised_loss(backbone, batch)

    assert fit([RunHealth(loss_spike=2)], module=Unsupervised).trainer.global_step == 4


@pytest.mark.parametrize("settings", [{"loss_spike": 1.0}, {"every_n_steps": 0}])
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        RunHealth(**settings)
