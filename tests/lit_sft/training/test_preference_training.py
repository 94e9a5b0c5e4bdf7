"""Runs on preference pairs: what is trained, measured, resumed, refused and said."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from callbacks import TrialRecord
from data_modules.batching.batch import collate
from data_modules.errors import UserError, UserNotice
from data_modules.rendering.masking import MASKS
from data_modules.sft_data_module import SFTDataModule
from lit_sft.models.loss import reference_nll, token_nll
from lit_sft.models.objectives import ObjectiveName, ObjectiveSettings
from lit_sft.runs.test_result import write_records
from lit_sft.training.module import LitCausalLM
from tests.lit_sft.training.test_resuming import Diary, assert_same_end
from tests.training import make_module, make_trainer, train

MakeData = Callable[..., SFTDataModule]

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*compares the model with the one before training, whose weights are random"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended"),
]


@pytest.fixture
def make(make_data: MakeData) -> MakeData:
    return partial(make_data, template="plain")


def pair_rows(count: int) -> list[dict[str, str]]:
    """Pairs with answers of very different lengths."""
    return [
        {"prompt": f"Count to {n}.", "chosen": "123456789"[: n % 9 + 1], "rejected": f"No {n % 5}." * (n % 3 + 1)}
        for n in range(count)
    ]


def rated_rows(count: int) -> list[dict[str, Any]]:
    """The same answers, rated one by one: two good ones for each bad one."""
    pairs = pair_rows(count)
    return [
        {"prompt": row["prompt"], "completion": row["chosen" if n % 3 else "rejected"], "label": n % 3 > 0}
        for n, row in enumerate(pairs)
    ]


def dpo(objective: ObjectiveName = "dpo", **settings: Any) -> LitCausalLM:
    plain = make_module(**settings)
    return LitCausalLM(plain.backbone_settings, plain.optimizer_settings, objective=ObjectiveSettings(objective))


ROWS_OF: dict[ObjectiveName, Callable[[int], list[dict[str, Any]]]] = {"dpo": pair_rows, "apo_zero": rated_rows}


def weights_of(module: LitCausalLM) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in module.backbone.named_parameters() if p.requires_grad}


LAYOUTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "packed": ({"batch_size": 8, "share_prefixes": False}, {}),
    "padded": ({"batch_size": 8, "packing": False}, {}),
    "small micro-batches": ({"batch_size": 8, "token_budget": 60}, {}),
    "accumulated": ({"batch_size": 2}, {"accumulate_grad_batches": 4}),
    "one by one": ({"batch_size": 1}, {"accumulate_grad_batches": 8}),
}


@pytest.mark.parametrize(("objective", "tuning"), [("dpo", "full"), ("dpo", "lora"), ("apo_zero", "lora")])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_do_not_depend_on_the_layout(
    make: MakeData, tmp_path: Path, layout: str, tuning: str, objective: ObjectiveName
) -> None:
    data, trainer = LAYOUTS[layout]
    ends = []
    for settings, more in (({"batch_size": 8}, {}), (data, trainer)):
        module = dpo(objective, lr=1e-2, tuning=tuning, name_of_optimizer="adamw", eps=1e-3)
        train(make(ROWS_OF[objective](20), **settings), tmp_path, module, max_epochs=2, limit_val_batches=0, **more)
        assert module.trainer.global_step == 6
        ends.append(weights_of(module))
    for name, weight in ends[0].items():
        torch.testing.assert_close(ends[1][name], weight, rtol=1e-3, atol=1e-5)


def fit(
    make: MakeData, folder: Path, *, ckpt: Path | None = None, tuning: str, objective: ObjectiveName
) -> tuple[LitCausalLM, Diary]:
    diary = Diary(None if ckpt else folder)
    data = make(ROWS_OF[objective](14), batch_size=2, val_fraction=0.2, seed=3)
    module = dpo(objective, schedule="linear", dropout=0.1, tuning=tuning)
    trainer = make_trainer(folder, callbacks=[diary], max_epochs=2, accumulate_grad_batches=2, val_check_interval=3)
    trainer.fit(module, datamodule=data, ckpt_path=ckpt, weights_only=True)
    return module, diary


@pytest.mark.parametrize(("objective", "tuning"), [("dpo", "full"), ("dpo", "lora"), ("apo_zero", "full")])
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_resuming_is_bit_identical(make: MakeData, tmp_path: Path, tuning: str, objective: ObjectiveName) -> None:
    end, straight = fit(make, tmp_path, tuning=tuning, objective=objective)
    for moment in ("batch 0.1", "validation at step 1", "start of 1.0", "batch 1.2"):
        ends, resumed = fit(make, tmp_path, tuning=tuning, objective=objective, ckpt=straight.saved[moment])
        assert resumed.entries == straight.entries[len(straight.entries) - len(resumed.entries) :], moment
        assert_same_end(end, ends)


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_model_of_a_checkpoint_has_the_reference_of_its_run(make: MakeData, tmp_path: Path, tuning: str) -> None:
    data = make(pair_rows(20), batch_size=8)
    module = train(data, tmp_path, dpo(lr=3e-2, tuning=tuning), max_epochs=2, limit_val_batches=0)
    module.trainer.save_checkpoint(tmp_path / "end.ckpt")
    loaded = LitCausalLM.load_from_checkpoint(tmp_path / "end.ckpt", tokenizer=data.tokenizer)
    batch = collate(list(data.stores["train"])[:4], mask=MASKS["output_only"], pairs=True)
    (before, after), (its_before, its_after) = (
        (reference_nll(each.backbone, batch), token_nll(each.backbone.eval(), batch)) for each in (module, loaded)
    )
    assert before is not None
    assert its_before is not None
    torch.testing.assert_close((its_before, its_after), (before, after))
    assert (its_before - its_after).abs().max() > 0.1


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_preferences_are_learned(make: MakeData, tmp_path: Path, tuning: str) -> None:
    module = dpo(lr=3e-2, tuning=tuning)
    train(make(pair_rows(40), batch_size=8, val_fraction=0.3), tmp_path, module, max_epochs=6)
    before, after = module.metrics_before, module.metrics["val"]
    assert before["preference_loss"] == pytest.approx(0.6931, abs=1e-3)
    assert (before["reward_accuracy"], before["reward_margin"]) == (0, 0)
    assert after["preference_loss"] < 0.6
    assert after["reward_accuracy"] > 0.9
    assert after["reward/chosen"] - after["reward/rejected"] == pytest.approx(after["reward_margin"])


def test_ratings_are_learned(make: MakeData, tmp_path: Path) -> None:
    module = dpo("apo_zero", lr=1e-2, tuning="full")
    train(make(rated_rows(40), batch_size=8, val_fraction=0.3), tmp_path, module, max_epochs=6)
    before, after = module.metrics_before, module.metrics["val"]
    assert before["preference_loss"] == 0.5  # all rewards are 0
    assert after["preference_loss"] < 0.4
    assert after["reward/chosen"] > 0 > after["reward/rejected"]
    assert "preference_accuracy" not in after


def test_next_token_on_ratings_is_next_token_on_the_good_answers(
    make: MakeData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = rated_rows(20)
    good = [{"prompt": row["prompt"], "completion": row["completion"]} for row in rows if row["label"]]
    modules = []
    for given in (rows, good):
        data = make(given, batch_size=20, val_fraction=0)
        data.stores["test"] = data.stores["train"]
        with caplog.at_level("INFO", "lightning.pytorch"):
            module = train(data, tmp_path, make_module(lr=1e-2, eps=1e-3), max_epochs=3, limit_val_batches=0)
        modules.append(module)
        said = "20 rated answers in the training data: the model trains on the good answers only"
        assert (said in caplog.text) is (given is rows)
        make_trainer(tmp_path).test(module, datamodule=data, verbose=False)
        caplog.clear()
    one, other = modules
    for name, weight in weights_of(one).items():
        torch.testing.assert_close(weights_of(other)[name], weight, rtol=1e-4, atol=1e-6)
    for name in ("loss", "nll/answer", "tokens/answer"):
        assert one.metrics["test"][name] == pytest.approx(other.metrics["test"][name], rel=1e-5)
    assert one.metrics["test"]["nll/rejected"] > 0


def test_next_token_on_pairs_is_next_token_on_the_chosen_answers(
    make: MakeData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = pair_rows(20)
    chosen = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in rows]
    ends = []
    for given in (rows, chosen):
        data = make(given, batch_size=4, shuffle=False)
        with caplog.at_level("INFO", "lightning.pytorch"):
            module = train(data, tmp_path, make_module(lr=1e-2), max_epochs=2, limit_val_batches=0)
        ends.append(weights_of(module))
        assert ("the model trains on the chosen answers only" in caplog.text) is (given is rows)
        caplog.clear()
    for name, weight in ends[0].items():
        assert torch.equal(ends[1][name], weight)


def test_everything_but_preferences_is_measured_on_the_chosen_documents(make: MakeData, tmp_path: Path) -> None:
    rows = pair_rows(12)
    found = []
    for given in (rows, [{"prompt": row["prompt"], "completion": row["chosen"]} for row in rows]):
        module = make_module()
        data = make(given, eval_batch_size=5)
        data.stores["val"] = data.stores["train"]
        make_trainer(tmp_path).validate(module, datamodule=data, verbose=False)
        found.append(module.metrics["val"])
    own = {"preference_accuracy", "nll/rejected"}
    assert found[0].keys() - found[1].keys() == own
    assert {name: found[0][name] for name in found[1]} == pytest.approx(found[1], rel=1e-6)


def test_test_of_a_fully_tuned_model_has_no_rewards_but_an_accuracy(make: MakeData, tmp_path: Path) -> None:
    data = make(pair_rows(30), test_fraction=0.3)
    for tuning, has_rewards in (("full", False), ("lora", True)):
        module = dpo(tuning=tuning)
        make_trainer(tmp_path).test(module, datamodule=data, verbose=False)
        assert "preference_accuracy" in module.metrics["test"]
        assert ("reward_margin" in module.metrics["test"]) is has_rewards
        write_records(tmp_path / "records.jsonl", module)
        rows = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
        assert len(rows) == data.ledgers["test"]["pairs"] == len({row["origin"] for row in rows})
        assert {row["pairs"] for row in rows} == {1}
        preferred = sum(row["preferred"] for row in rows)
        assert preferred / len(rows) == pytest.approx(module.metrics["test"]["preference_accuracy"])
        assert sum(row["tokens"]["answer"] for row in rows) == module.metrics["test"]["tokens/answer"]


def test_a_trial_of_dpo_sees_the_same_records_as_one_of_next_token(make: MakeData, tmp_path: Path) -> None:
    records = []
    for module in (make_module(), dpo()):
        record = TrialRecord()
        train(make(pair_rows(20), batch_size=4, seed=3), tmp_path, module, callbacks=[record], limit_val_batches=0)
        records.append(record)
    one, other = records
    assert one.order == other.order
    assert len(set(one.order)) == 5
    assert one.counts["examples"] == other.counts["examples"] == 20
    assert one.counts["tokens"] < other.counts["tokens"]


ROWS = [{"prompt": f"Say {n}.", "completion": str(n)} for n in range(6)]


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        (ROWS, {}, r"--model.objective.name dpo: 6 of 6 train examples are not preference pairs\. Give .*next_token"),
        (pair_rows(8), {"mask": "whole_sequence"}, r"--data.mask whole_sequence with .* only answers are compared"),
        (pair_rows(8), {"prompt_weight": 0.1}, r"--data.mask output_only_prompt0.1 .*without `--data.prompt_weight`"),
        (pair_rows(8), {"reduction": "sample"}, r"--data.reduction sample with .* every pair counts equally"),
    ],
)  # fmt: skip
def test_data_that_is_not_for_dpo_is_refused(
    make: MakeData, tmp_path: Path, rows: list[dict[str, str]], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        train(make(rows, **settings), tmp_path, dpo(), limit_val_batches=0)


@pytest.mark.parametrize(
    ("objective", "rows", "message"),
    [
        ("dpo", rated_rows(9), r"dpo: 9 of 9 train examples are not preference pairs\. .* apo_zero`, which trains on"),
        ("apo_zero", ROWS, r"apo_zero: 6 of 6 .* preference pairs or rated answers\. .*`label`.* next_token`"),
    ],
)
def test_ratings_are_for_apo_zero_only(
    make: MakeData, tmp_path: Path, objective: ObjectiveName, rows: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        train(make(rows), tmp_path, dpo(objective), limit_val_batches=0)


def test_next_token_on_bad_answers_alone_is_refused(make: MakeData, tmp_path: Path) -> None:
    bad = [row | {"label": False} for row in rated_rows(8)]
    with pytest.raises(UserError, match=r"all 8 rated answers in the training data are bad.* apo_zero"):
        train(make(bad, val_fraction=0), tmp_path, make_module(), limit_val_batches=0)
    train(make([*bad[1:], bad[0] | {"label": True}], val_fraction=0), tmp_path, make_module(), limit_val_batches=0)


def test_checkpoints_chosen_by_the_nll_are_remarked(make: MakeData, tmp_path: Path) -> None:
    data = make(pair_rows(12), val_fraction=0.3)
    callback = ModelCheckpoint(tmp_path / "checkpoints", monitor="val/loss")
    with pytest.warns(UserNotice, match=r"--checkpoint.monitor val/loss: .*val/preference_loss"):
        train(data, tmp_path, dpo(), max_steps=1, callbacks=[callback], enable_checkpointing=True)
