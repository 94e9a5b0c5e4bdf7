"""Runs with other objectives: what is logged, resumed, shared, saved, refused and said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, SingleDeviceStrategy

from data_modules.errors import UserError, UserNotice
from data_modules.sft_data_module import SFTDataModule
from lit_sft.models.adapters import LoraSettings
from lit_sft.models.backbone import BackboneSettings
from lit_sft.models.loss import supervised_loss
from lit_sft.models.objectives import ObjectiveSettings
from lit_sft.training.module import LitCausalLM
from lit_sft.training.objective_checks import check_objective
from tests.conftest import chat_rows
from tests.lit_sft.training.test_resuming import Diary, assert_same_end
from tests.training import make_module, make_trainer, train

MakeData = Callable[..., SFTDataModule]
OBJECTIVES: dict[str, dict[str, Any]] = {
    "smoothing": {"label_smoothing": 0.1},
    "dft": {"name": "dft"},
    "profit": {"name": "profit", "threshold": 0.005},
    "kl": {"kl_weight": 0.3},
    "noise": {"neftune_alpha": 5.0},
    "dft, kl and noise": {"name": "dft", "kl_weight": 0.3, "neftune_alpha": 5.0},
}

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*compares the model with the one before training, whose weights are random"),
    pytest.mark.filterwarnings("ignore:.*a model with random weights finds none likely"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended"),
]


def module_with(objective: dict[str, Any], **settings: Any) -> LitCausalLM:
    plain = make_module(**settings)
    return LitCausalLM(
        plain.backbone_settings, plain.optimizer_settings, plain.generation_settings, ObjectiveSettings(**objective)
    )


def fit(make_data: MakeData, folder: Path, objective: dict[str, Any], *, ckpt: Path | None = None, **more: Any) -> Any:
    diary = Diary(None if ckpt else folder)
    data = make_data(chat_rows(14), batch_size=2, val_fraction=0.2, seed=3, template="plain", mask="firefly_multi_turn")
    module = module_with(objective, schedule="linear", **{"dropout": 0.1} | more)
    trainer = make_trainer(folder, callbacks=[diary], max_epochs=2, accumulate_grad_batches=2, val_check_interval=3)
    trainer.fit(module, datamodule=data, ckpt_path=ckpt, weights_only=True)
    return module, diary


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("objective", ["noise", "dft, kl and noise"])
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_resuming_is_bit_identical_with_noise_and_a_reference(
    make_data: MakeData, tmp_path: Path, objective: str, tuning: str
) -> None:
    settings = OBJECTIVES[objective]
    end, straight = fit(make_data, tmp_path, settings, tuning=tuning)
    for moment in ("batch 0.1", "validation at step 1", "start of 1.0", "batch 1.2"):
        ends, resumed = fit(make_data, tmp_path, settings, tuning=tuning, ckpt=straight.saved[moment])
        assert resumed.entries == straight.entries[len(straight.entries) - len(resumed.entries) :], moment
        assert_same_end(end, ends)


def test_a_reference_is_neither_saved_nor_optimised(make_data: MakeData, tmp_path: Path) -> None:
    module, diary = fit(make_data, tmp_path, {"kl_weight": 0.3})
    saved = torch.load(diary.saved["end of training"], weights_only=True)
    plain, _ = fit(make_data, tmp_path, {})
    assert saved["state_dict"].keys() == plain.state_dict().keys()
    assert len(module.trainer.optimizers[0].state) == len(plain.trainer.optimizers[0].state)
    (copy,) = module.backbone.reference
    fresh = make_module(schedule="linear", dropout=0.1)
    fresh._build(module.data.tokenizer)
    for name, weight in fresh.backbone.state_dict().items():
        assert torch.equal(copy.state_dict()[name], weight)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_loss_is_the_objective_and_everything_else_the_nll(make_data: MakeData, tmp_path: Path, objective: str) -> None:
    data = make_data(chat_rows(6), batch_size=6, val_fraction=0.0)
    module = train(data, tmp_path, module_with(OBJECTIVES[objective]), max_steps=1, limit_val_batches=0)
    logged = module.trainer.callback_metrics
    plain = train(data, tmp_path, make_module(), max_steps=1, limit_val_batches=0).trainer.callback_metrics
    assert "train/nll" not in plain
    if objective == "noise":
        assert "train/nll" not in logged
        assert float(logged["train/loss"]) != float(plain["train/loss"])
    elif objective == "kl":  # before the first step, the model is its own reference
        assert float(logged["train/loss"]) == pytest.approx(float(logged["train/nll"]), abs=1e-6)
    else:
        assert float(logged["train/loss"]) != pytest.approx(float(logged["train/nll"]), rel=1e-3)
    if "noise" not in objective:
        assert float(logged["train/nll"]) == pytest.approx(float(plain["train/loss"]), rel=1e-6)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_validation_and_test_measure_the_nll_of_the_weights(
    make_data: MakeData, tmp_path: Path, objective: str
) -> None:
    data = make_data(chat_rows(12), batch_size=2, val_fraction=0.3)
    module = train(data, tmp_path, module_with(OBJECTIVES[objective]), max_steps=2)
    plain = make_module()
    plain._build(data.tokenizer)
    plain.backbone.load_state_dict(module.backbone.state_dict())
    make_trainer(tmp_path).validate(plain, datamodule=data, verbose=False)
    assert module.metrics["val"]["loss"] == pytest.approx(plain.metrics["val"]["loss"], rel=1e-6)


def test_a_kl_term_keeps_the_model_closer_to_its_base(make_data: MakeData, tmp_path: Path) -> None:
    moved = []
    for weight in (0.0, 10.0):
        data = make_data(chat_rows(12), batch_size=4, val_fraction=0.0)
        module = module_with({"kl_weight": weight} if weight else {}, lr=1e-2)
        train(data, tmp_path, module, max_epochs=8, limit_val_batches=0)
        base = make_module()
        base._build(data.tokenizer)
        ids = torch.tensor([data.stores["train"][0].input_ids.tolist()])
        p, r = (each.backbone.eval()(ids, use_cache=False).logits.log_softmax(-1) for each in (module, base))
        moved.append(float((r.exp() * (r - p)).sum().detach()))
    assert moved[1] < moved[0] / 2


def test_the_settings_travel_in_checkpoints_and_another_objective_is_another_run(
    make_data: MakeData, tmp_path: Path
) -> None:
    _, diary = fit(make_data, tmp_path, {"name": "dft"})
    path = diary.saved["batch 0.1"]
    loaded = LitCausalLM.load_from_checkpoint(path, tokenizer=make_data(chat_rows(3)).tokenizer)
    assert loaded.objective_settings == ObjectiveSettings(name="dft")
    with pytest.raises(UserError, match=r"--model.objective.name was \"dft\" and is now unset"):
        fit(make_data, tmp_path, {}, ckpt=path)
    identity = torch.load(path, weights_only=True)["identity"]
    assert {name: value for name, value in identity.items() if "objective" in name} == {
        "--model.objective.name": '"dft"'
    }


def test_a_run_from_before_there_were_objectives_has_the_same_identity(make_data: MakeData, tmp_path: Path) -> None:
    _, diary = fit(make_data, tmp_path, {})
    assert not [
        name for name in torch.load(diary.saved["batch 0.1"], weights_only=True)["identity"] if "objective" in name
    ]


@pytest.mark.parametrize(("alpha", "shared"), [(0.0, True), (5.0, False)])
def test_noise_turns_sharing_off_and_says_so(
    make_data: MakeData, tmp_path: Path, caplog: pytest.LogCaptureFixture, alpha: float, shared: bool
) -> None:
    data = make_data(chat_rows(12), batch_size=6, samples="answer", mask="output_only", share_prefixes=True)
    diary = Diary()
    module = module_with({"neftune_alpha": alpha})
    with caplog.at_level("INFO", logger="lightning.pytorch.utilities.rank_zero"):
        train(data, tmp_path, module, max_steps=2, callbacks=[diary], limit_val_batches=0)
    assert (diary.num_shared > 0) == shared == ("train" in module.shares_prefixes)
    assert "val" in module.shares_prefixes
    assert ("NEFTune's noise differs between documents" in caplog.text) != shared


def test_testing_and_then_fitting_has_a_reference(make_data: MakeData, tmp_path: Path) -> None:
    data = make_data(chat_rows(12), batch_size=4, test_fraction=0.3)
    module = module_with({"kl_weight": 0.1})
    make_trainer(tmp_path).test(module, datamodule=data, verbose=False)
    assert not hasattr(module.backbone, "reference")
    train(data, tmp_path, module, max_steps=1, limit_val_batches=0)
    assert module.trainer.global_step == 1


def test_next_token_is_the_function_that_is_sharded() -> None:
    assert make_module().objective is supervised_loss


FULL, LORA = (BackboneSettings(pretrained="base", tuning=tuning) for tuning in ("full", "lora"))


def test_a_whole_copy_of_a_sharded_model_is_refused() -> None:
    settings = ObjectiveSettings(kl_weight=0.1)
    with pytest.raises(UserError, match=r"--model.objective with ModelParallelStrategy: .*tuning lora.*ddp\.yaml"):
        check_objective(settings, FULL, ModelParallelStrategy())
    check_objective(settings, LORA, ModelParallelStrategy())
    check_objective(ObjectiveSettings(name="dft"), FULL, ModelParallelStrategy())
    for strategy in (SingleDeviceStrategy(), DDPStrategy()):
        check_objective(settings, FULL, strategy)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"name": "profit"}, "finds none likely"), ({"name": "dft"}, "finds none likely"), ({"kl_weight": 1.0}, "random")],
)
def test_objectives_that_build_on_what_the_model_knows_are_remarked_for_random_weights(
    settings: dict[str, Any], reason: str
) -> None:
    with pytest.warns(UserNotice, match=reason):
        check_objective(ObjectiveSettings(**settings), BackboneSettings(config={}), SingleDeviceStrategy())


@pytest.mark.parametrize(
    "more", [{"adapter": "first/model"}, {"lora": LoraSettings(init="pissa")}, {"lora": LoraSettings(init="olora")}]
)
def test_reference_is_refused_where_the_model_without_adapters_is_another(more: dict[str, Any]) -> None:
    backbone = BackboneSettings("m", tuning="lora", **more)
    with pytest.raises(ValueError, match="compares the model with the one before training"):
        check_objective(ObjectiveSettings(kl_weight=0.1), backbone, SingleDeviceStrategy())
    check_objective(ObjectiveSettings(), backbone, SingleDeviceStrategy())
