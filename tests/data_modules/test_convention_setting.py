"""`--data.convention`: the data module trains exactly what the convention labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_modules.encoding.encoder import Encoder
from data_modules.encoding.ledger import Ledger
from data_modules.errors import UserError
from data_modules.records.conversation import Conversation, Message, Role
from data_modules.rendering.conventions import expected_labels, resolve_convention
from data_modules.rendering.masking import MASKS
from data_modules.sft_data_module import SFTDataModule
from lit_sft.runs.data_report import data_remarks
from tests.conftest import byte_tokenizer

CHAT = ("trl:messages", "trl:assistant_only", "trl:prompt_completion", "llamafactory", "llamafactory:mask_history",
        "axolotl:train_on_eos=all", "torchtune", "torchtune:max_seq_len", "firefly", "minimind")  # fmt: skip
ROWS = [[f"q{i}" * (i + 1), "a" * (7 * i + 1), "r", "b" * (3 * i + 1)] for i in range(12)]


@pytest.fixture
def records(tmp_path: Path) -> str:
    path, roles = tmp_path / "records.jsonl", ("user", "assistant") * 2
    with path.open("w") as file:
        for row in ROWS:
            messages = [{"role": role, "content": text} for role, text in zip(roles, row, strict=True)]
            file.write(json.dumps({"messages": messages}) + "\n")
    return str(path)


def data_module(records: str, cache: Path, **settings: Any) -> SFTDataModule:
    given = {"template": "chatml", "val_fraction": 0, "test_fraction": 0, "batch_size": 4, **settings}
    data = SFTDataModule(records, tokenizer=byte_tokenizer(), cache_dir=str(cache), **given)
    data.setup("fit")
    return data


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("name", CHAT)
def test_batches_hold_the_ids_and_labels_of_the_convention(
    name: str, packing: bool, records: str, tmp_path: Path
) -> None:
    data = data_module(records, tmp_path, convention=name, max_length=100, packing=packing)
    convention = resolve_convention(name, data.tokenizer, "chatml")
    wanted = set()
    for row in ROWS:
        roles = (Role.USER, Role.ASSISTANT) * 2
        turns = tuple(Message(role, text) for role, text in zip(roles, row, strict=True))
        labelled = expected_labels(convention, Conversation(turns, "row"), 100)
        if labelled is not None:
            ids, labels = labelled
            wanted.add((tuple(ids), tuple(place for place, label in enumerate(labels) if place and label != -100)))
    assert len(wanted) > 0
    found, supervised = set(), 0.0
    for example in data.stores["train"]:
        places = np.flatnonzero(example.loss_weights(data.mask) > 0)
        found.add((tuple(example.input_ids.tolist()), tuple(places.tolist())))
    assert found == wanted
    for batch in data.train_dataloader():
        for part in batch:
            supervised += float(part.weights.sum())
            assert part.targets.tolist() == np.flatnonzero(part.weights.numpy().ravel()).tolist()
    assert supervised == sum(len(places) for _, places in wanted)


def test_metrics_and_other_masks_go_by_kind(records: str, tmp_path: Path) -> None:
    plain, other = data_module(records, tmp_path), data_module(records, tmp_path, convention="trl:messages")
    for ours, theirs in zip(plain.stores["train"], other.stores["train"], strict=True):
        assert ours.input_ids.tolist() == theirs.input_ids.tolist()
        for mask in MASKS.values():
            assert ours.loss_weights(mask).tolist() == theirs.loss_weights(mask).tolist()


def test_the_identity_of_a_run_names_the_convention_only_if_there_is_one(records: str, tmp_path: Path) -> None:
    plain, other = data_module(records, tmp_path), data_module(records, tmp_path, convention="axolotl")
    assert "--data.convention" not in plain.identity()
    assert other.identity()["--data.convention"] == "axolotl"


@pytest.mark.parametrize(
    "setting",
    [{"mask": "whole_sequence"}, {"prompt_weight": 0.5}, {"answer_weight": 0.5}, {"over_long": "drop"}],
    ids=lambda given: next(iter(given)),
)
def test_a_setting_that_contradicts_the_convention_is_an_error(setting: dict[str, Any]) -> None:
    name = next(iter(setting))
    with pytest.raises(UserError, match=rf"--data.convention axolotl and --data.{name} "):
        SFTDataModule("x.json", convention="axolotl", **setting)


def test_the_ledger_counts_what_the_convention_cuts(records: str) -> None:
    tokenizer, ledger = byte_tokenizer(), Ledger()
    convention = resolve_convention("trl:messages", tokenizer, "chatml")
    encoder = Encoder(tokenizer, convention.template, 40, convention=convention)
    row = Conversation((Message(Role.USER, "q" * 20), Message(Role.ASSISTANT, "answer")), "row")
    (example,) = encoder.encode(row, ledger)
    assert len(example) == 40
    assert ledger.truncated == 1
    assert sum(ledger.tokens["read"].values()) - sum(ledger.tokens["kept"].values()) == 47 - 40


def test_prompts_to_predict_are_not_cut_by_the_convention(records: str, tmp_path: Path) -> None:
    data = data_module(records, tmp_path, convention="axolotl", predict=records)
    assert len(data.stores["predict"]) == len(ROWS)


def test_remarks_say_who_cuts_and_what_else_was_changed(records: str, tmp_path: Path) -> None:
    path, messages = tmp_path / "long.jsonl", [{"role": "user", "content": "q" * 90}] * 2
    answered = [*messages, {"role": "assistant", "content": "a"}]
    path.write_text(json.dumps({"messages": answered}) + "\n")
    settings = {"convention": "axolotl", "consecutive": "merge", "max_length": 100, "context_length": 120}
    data = SFTDataModule(
        [records, str(path)], predict=str(path), tokenizer=byte_tokenizer(), cache_dir=str(tmp_path), answer_length=20,
        template="chatml", val_fraction=0, test_fraction=0, **settings,  # type: ignore[arg-type]
    )  # fmt: skip
    data.setup("predict")
    train, changed, predict, *_ = data_remarks(data)
    assert "longer than --data.max_length 100; axolotl cuts them as that trainer does, of which" in train
    assert changed == "train: 1 messages joined with the one before."
    assert predict.startswith("predict: 1 of 1 prompts was shortened to 100 tokens")
