from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from data_modules.errors import UserError
from data_modules.sft_data_module import SFTDataModule
from lit_sft.training.module import LitCausalLM
from lit_sft.training.resuming import check_identity, seed_batch
from tests.conftest import byte_tokenizer, chat_rows
from tests.training import make_module, make_trainer, save_base

MakeData = Callable[..., SFTDataModule]

pytestmark = [
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]


class Diary(Callback):
    """Records the contents and loss of every batch, and saves at every hook if a folder is given."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.entries: list[tuple[Any, ...]] = []
        self.saved: dict[str, Path] = {}
        self.num_shared = 0  # micro-batches whose documents share their beginnings

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        origins = tuple(origin for micro_batch in batch for origin in micro_batch.origins)
        self.num_shared += sum(micro_batch.tree is not None for micro_batch in batch)
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        self._save(trainer, f"start of {trainer.current_epoch}.{batch_idx}")
        self.entries.append((trainer.current_epoch, batch_idx, trainer.global_step, rate, origins))

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.entries[-1] += (float(outputs["nats"]),)
        self._save(trainer, f"batch {trainer.current_epoch}.{batch_idx}")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._save(trainer, f"validation at step {trainer.global_step}")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer, f"end of epoch {trainer.current_epoch}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer, "end of training")

    def _save(self, trainer: Trainer, name: str) -> None:
        if self.folder:
            self.saved[name] = self.folder / f"{len(self.saved)}.ckpt"
            trainer.save_checkpoint(self.saved[name])


def run(
    make_data: MakeData, folder: Path, diary: Diary, *, tuning: str = "full", fit: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None, optimizer: str = "adamw", dropout: float = 0.1,
    backbone: dict[str, Any] | None = None, **settings: Any,
) -> LitCausalLM:  # fmt: skip
    """Three epochs of eleven batches, two per step, with dropout and every stateful component."""
    shaping = {"batch_size": 2, "val_fraction": 0.2, "seed": 3, "template": "plain", "mask": "firefly_multi_turn"}
    shaping |= data or {}
    schedule = "linear" if "max_steps" not in settings else "constant"
    made = {"name_of_optimizer": optimizer, "backbone": backbone}
    module = make_module(tuning=tuning, dropout=dropout, schedule=schedule, **made)  # type: ignore[arg-type]
    trainer = make_trainer(folder, callbacks=[diary], **({"max_epochs": 3, "accumulate_grad_batches": 2} | settings))
    trainer.fit(module, datamodule=make_data(chat_rows(28), **shaping), weights_only=True, **(fit or {}))
    return module


def state_of(module: LitCausalLM) -> tuple[dict[str, torch.Tensor], list[torch.Tensor], dict[str, Any]]:
    optimizer = module.trainer.optimizers[0].state_dict()["state"]
    tensors = [value for state in optimizer.values() for value in state.values()]
    return module.state_dict(), tensors, module.trainer.lr_scheduler_configs[0].scheduler.state_dict()


def assert_same_end(one: LitCausalLM, other: LitCausalLM) -> None:
    (weights, moments, schedule), (weights_2, moments_2, schedule_2) = state_of(one), state_of(other)
    assert all(torch.equal(weights[name], weights_2[name]) for name in weights)
    assert all(torch.equal(a, b) for a, b in zip(moments, moments_2, strict=True))
    assert {k: v for k, v in schedule.items() if k != "lr_lambdas"} == {
        k: v for k, v in schedule_2.items() if k != "lr_lambdas"
    }


@pytest.mark.parametrize(
    ("tuning", "packing", "optimizer"),
    [
        ("full", True, "adamw"),
        ("lora", True, "adamw"),
        ("full", False, "adamw"),
        ("full", True, "muon"),
        ("full", True, "adafactor"),
        ("lora", True, "adafactor"),
    ],
)
def test_resuming_at_any_point_is_bit_identical_to_an_uninterrupted_run(
    make_data: MakeData, tmp_path: Path, tuning: str, packing: bool, optimizer: str
) -> None:
    settings: dict[str, Any] = {"tuning": tuning, "data": {"packing": packing}, "val_check_interval": 3}
    settings["optimizer"] = optimizer
    straight = Diary(tmp_path)
    end = run(make_data, tmp_path, straight, **settings)
    moments = [
        "start of 0.0", "batch 0.1", "batch 0.2", "start of 0.3", "validation at step 1",
        "batch 0.10", "end of epoch 0",  # 0.2: inside a window
        "start of 1.0", "batch 1.4", "start of 1.6", "batch 1.7", "batch 2.0", "batch 2.9", "end of training",
    ]  # fmt: skip
    for moment in moments if (tuning, packing, optimizer) == ("full", True, "adamw") else moments[1::4]:
        resumed = Diary()
        ends = run(make_data, tmp_path, resumed, fit={"ckpt_path": straight.saved[moment]}, **settings)
        rest = len(resumed.entries)
        assert resumed.entries == straight.entries[len(straight.entries) - rest :], moment
        assert_same_end(end, ends)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_resuming_with_new_tokens_is_bit_identical_too(make_data: MakeData, tmp_path: Path, tuning: str) -> None:
    new: dict[str, Any] = {"add_tokens": ["fine"], "add_special_tokens": ["<tool_call>"]}
    backbone = {"pretrained": save_base("gpt2", tmp_path / "base", byte_tokenizer()), "config": None, **new}
    settings: dict[str, Any] = {"tuning": tuning, "backbone": backbone, "data": new, "max_epochs": 1}
    straight = Diary(tmp_path)
    end = run(make_data, tmp_path, straight, **settings)
    assert any(tokens == 260 for tokens in end.data.tokenizer.get_vocab().values())
    for moment in ("batch 0.2", "start of 0.5"):
        resumed = Diary()
        ends = run(make_data, tmp_path, resumed, fit={"ckpt_path": straight.saved[moment]}, **settings)
        assert resumed.entries == straight.entries[len(straight.entries) - len(resumed.entries) :], moment
        assert_same_end(end, ends)


@pytest.mark.parametrize(("shares", "groups"), [(True, False), (False, False), (True, True)])
def test_resuming_with_shared_prefixes_is_bit_identical_too(
    make_data: MakeData, tmp_path: Path, shares: bool, groups: bool
) -> None:
    data = {"template": "chatml", "share_prefixes": shares, "group_by_prefix": groups, "samples": "answer"}
    settings: dict[str, Any] = {"data": data, "dropout": 0.0, "max_epochs": 1}
    straight = Diary(tmp_path)
    end = run(make_data, tmp_path, straight, **settings)
    assert len(straight.entries) >= 16
    assert bool(straight.num_shared) == shares
    for moment in ("batch 0.0", "batch 0.5", "start of 0.8", "batch 0.13"):
        resumed = Diary()
        ends = run(make_data, tmp_path, resumed, fit={"ckpt_path": straight.saved[moment]}, **settings)
        assert resumed.entries == straight.entries[len(straight.entries) - len(resumed.entries) :], moment
        assert_same_end(end, ends)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork")
def test_resuming_with_prefetching_workers_equals_an_uninterrupted_run(make_data: MakeData, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"data": {"num_workers": 1}}
    straight = Diary(tmp_path)
    end = run(make_data, tmp_path, straight, **settings)
    for moment in ("batch 0.10", "end of epoch 0", "start of 1.0", "batch 1.4"):
        resumed = Diary()
        ends = run(make_data, tmp_path, resumed, fit={"ckpt_path": straight.saved[moment]}, **settings)
        assert resumed.entries == straight.entries[len(straight.entries) - len(resumed.entries) :], moment
        assert_same_end(end, ends)


def test_last_batch_after_a_validation_is_not_skipped(make_data: MakeData, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"val_check_interval": 10}  # of eleven batches
    straight = Diary(tmp_path)
    end = run(make_data, tmp_path, straight, **settings)
    resumed = Diary()
    ends = run(make_data, tmp_path, resumed, fit={"ckpt_path": straight.saved["start of 1.10"]}, **settings)
    assert resumed.entries == straight.entries[21:]
    assert_same_end(end, ends)


@pytest.mark.parametrize("stop", [3, 6, 9])
def test_run_ended_by_max_steps_within_an_epoch_continues_there(make_data: MakeData, tmp_path: Path, stop: int) -> None:
    straight, first = Diary(), Diary(tmp_path)
    end = run(make_data, tmp_path, straight, max_steps=15)
    run(make_data, tmp_path, first, max_steps=stop)
    for moment in (f"validation at step {stop}", f"end of epoch {(stop - 1) // 6}", "end of training"):
        resumed = Diary()
        ends = run(make_data, tmp_path, resumed, max_steps=15, fit={"ckpt_path": first.saved[moment]})
        assert first.entries + resumed.entries == straight.entries, moment
        assert_same_end(end, ends)


def test_random_draws_between_batches_change_nothing(make_data: MakeData, tmp_path: Path) -> None:
    class Draws(Diary):
        def on_train_batch_end(self, *arguments: Any) -> None:
            super().on_train_batch_end(*arguments)
            torch.rand(7)

    assert_same_end(*(run(make_data, tmp_path, diary) for diary in (Diary(), Draws())))


def test_every_batch_on_every_rank_has_its_own_seed() -> None:
    draws = set()
    for place in ((0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)):
        seed_batch(*place)
        draws.add(float(torch.rand(())))
    assert len(draws) == 5


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"data": {"mask": "whole_sequence"}}, r'--data\.mask was "firefly_multi_turn" and is now "whole_sequence"'),
        ({"data": {"max_length": 40}}, r"--data\.max_length was 1024 and is now 40"),
        ({"data": {"batch_size": 4}}, r"--data\.batch_size x --trainer\.devices was 2 and is now 4"),
        ({"accumulate_grad_batches": 1}, r"--trainer\.accumulate_grad_batches was 2 and is now 1"),
        ({"tuning": "lora"}, r'--model\.backbone\.tuning was "full" and is now "lora"'),
        ({"gradient_clip_val": 0.5}, r"--trainer\.gradient_clip_val was null and is now 0\.5"),
    ],
)
def test_resuming_under_other_settings_is_refused_with_the_difference(
    make_data: MakeData, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    diary = Diary(tmp_path)
    run(make_data, tmp_path, diary, max_epochs=1)
    with pytest.raises(ValueError, match=rf"{named}.*Restore the original settings \(see the run's config\.yaml\), or"):
        run(make_data, tmp_path, Diary(), fit={"ckpt_path": diary.saved["batch 0.3"]}, **change)


def test_resuming_with_other_records_is_refused_unless_allowed(
    make_data: MakeData, tmp_path: Path, write: Callable[..., str]
) -> None:
    diary = Diary(tmp_path)
    run(make_data, tmp_path, diary, max_epochs=1)

    def resume(allow: bool) -> None:
        module = make_module(dropout=0.1, schedule="linear")
        module.allow_changes = allow
        data = make_data(
            chat_rows(29), batch_size=2, val_fraction=0.2, seed=3, template="plain", mask="firefly_multi_turn"
        )
        trainer = make_trainer(tmp_path, max_epochs=3, accumulate_grad_batches=2)
        trainer.fit(module, datamodule=data, ckpt_path=diary.saved["batch 0.3"], weights_only=True)

    changed = r"the records of --data\.train have been changed, added, removed or reordered since\."
    with pytest.raises(ValueError, match=rf"{changed} Restore the original files, or accept"):
        resume(allow=False)
    with pytest.warns(UserWarning, match=rf"resumed with changes: {changed}$"):
        resume(allow=True)


def test_run_of_an_earlier_version_of_the_encoding_is_not_resumed() -> None:
    before, now = ({"version of the encoding": version} for version in ("4", "5"))
    with pytest.raises(ValueError, match=r"this version of the code encodes records differently\..*allow_changes true"):
        check_identity(before, now, allow_changes=False)


def test_a_run_that_is_made_longer_follows_the_longer_schedule_from_its_first_step(
    make_data: MakeData, tmp_path: Path
) -> None:
    first, resumed = Diary(tmp_path), Diary()
    run(make_data, tmp_path, first, max_epochs=1)
    run(make_data, tmp_path, resumed, fit={"ckpt_path": first.saved["end of training"]})
    rates = {step: rate for _, _, step, rate, *_ in resumed.entries}
    assert rates == {step: 1e-3 * (1 - step / 18) for step in range(6, 18)}


def test_another_optimizer_is_refused_on_resuming_even_if_changes_are_allowed() -> None:
    with pytest.raises(
        UserError, match=r'--model\.optimizer\.name was unset and is now "muon": a checkpoint holds the'
    ):
        check_identity({}, {"--model.optimizer.name": '"muon"'}, allow_changes=True)


def test_optimizer_settings_changed_on_resuming_take_effect(make_data: MakeData, tmp_path: Path) -> None:
    diary = Diary(tmp_path)
    run(make_data, tmp_path, diary, max_epochs=1)
    module = make_module(dropout=0.1, schedule="constant", lr=5e-4, weight_decay=0.1, betas=(0.8, 0.9))
    module.allow_changes = True
    data = make_data(chat_rows(28), batch_size=2, val_fraction=0.2, seed=3, template="plain", mask="firefly_multi_turn")
    resumed = Diary()
    trainer = make_trainer(tmp_path, max_epochs=2, accumulate_grad_batches=2, callbacks=[resumed])
    with pytest.warns(UserWarning, match="resumed with changes"):
        trainer.fit(module, datamodule=data, ckpt_path=diary.saved["batch 0.3"], weights_only=True)
    assert {rate for _, _, _, rate, *_ in resumed.entries} == {5e-4}
    groups = [(group["weight_decay"], group["betas"]) for group in trainer.optimizers[0].param_groups]
    assert groups == [(0.1, (0.8, 0.9)), (0.0, (0.8, 0.9))]
