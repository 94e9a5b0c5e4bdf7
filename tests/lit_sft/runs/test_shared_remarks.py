"""Remarks about held-out splits without a row, and about a token budget below one row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer

from data_modules.batching import prefix_plans
from data_modules.sft_data_module import SFTDataModule
from data_modules.text_data_module import TextDataModule
from lit_sft.runs.shared_remarks import budget_remarks, group_remarks, held_out_remarks
from lit_sft.runs.text_report import text_remarks
from tests.conftest import alpaca_rows, articles, chat_rows
from tests.training import make_module, train

MakeText = Callable[..., TextDataModule]
MakeData = Callable[..., SFTDataModule]

NOTHING = (
    "nothing is left of --data.val_fraction 0.05 (so few records that none was chosen). Raise it, or name your own"
)


def test_fraction_of_one_document_holds_out_nothing_and_is_reported(make_text: MakeText, make_data: MakeData) -> None:
    text = make_text(["The only document."], val_fraction=0.05)
    assert text_remarks(text) == held_out_remarks(text) == [f"no validation: {NOTHING} with `--data.val FILE`."]
    assert held_out_remarks(make_data(alpaca_rows(1), val_fraction=0.05)) == held_out_remarks(text)


def test_held_out_documents_that_are_dropped_are_reported_with_the_rule(make_text: MakeText) -> None:
    data = make_text([*articles(30), "x" * 900], test_fraction=0.3, cleaning=[{"min_length": {"characters": 800}}])
    (remark,) = held_out_remarks(data)
    dropped = data.ledgers["test"]["dropped"]
    assert dropped > 1
    assert remark.startswith(
        f"no test: nothing is left of --data.test_fraction 0.3 ({dropped} dropped by cleaning (the rule `min_length`))."
    )


def test_splits_with_rows_are_not_remarked_upon(make_text: MakeText, make_data: MakeData) -> None:
    assert held_out_remarks(make_text(articles(40), val_fraction=0.3, test_fraction=0.3)) == []
    assert held_out_remarks(make_data(alpaca_rows(40), val_fraction=0.3, test_fraction=0.3)) == []
    assert held_out_remarks(make_text(articles(5))) == []


@pytest.mark.parametrize(("budget", "is_less"), [(31, True), (32, False)])
def test_token_budget_below_a_block_is_reported(make_text: MakeText, budget: int, is_less: bool) -> None:
    data = make_text(articles(10), token_budget=budget)
    expected = [
        "--data.token_budget 31 is less than one block: a forward pass then reads one block of up to 32 tokens."
    ]
    assert text_remarks(data) == (expected if is_less else [])
    batches = [part.input_ids.numel() for batch in data.train_dataloader() for part in batch]
    assert (max(batches) > budget) == is_less


def test_token_budget_below_the_longest_example_is_reported(make_data: MakeData) -> None:
    rows: list[Any] = alpaca_rows(6)
    longest = int(max(make_data(rows).stores["train"].lengths))
    (remark,) = budget_remarks(make_data(rows, token_budget=longest - 1))
    assert remark.endswith(f"less than one example: a forward pass then reads one example of up to {longest} tokens.")
    assert budget_remarks(make_data(rows, token_budget=longest)) == []


def test_families_are_found_once_for_the_remark_and_for_training(
    make_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With accumulation, a step holds more examples than a batch: the remark is about the groups of training."""
    found: list[int | None] = []
    families = prefix_plans.families
    monkeypatch.setattr(prefix_plans, "families", lambda num, ids, rows: found.append(rows) or families(num, ids, rows))  # type: ignore[func-returns-value]
    data = make_data(chat_rows(9), samples="answer", group_by_prefix=True, batch_size=3)
    remarks: list[list[str]] = []

    class Reporter(Callback):
        def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
            remarks.append(group_remarks(data))

    train(data, tmp_path, make_module(), accumulate_grad_batches=2, max_epochs=2, callbacks=[Reporter()])
    assert found == [6]
    assert len(remarks[0]) == 1
    assert group_remarks(make_data(chat_rows(9), samples="answer", batch_size=3)) == []


def test_groups_of_examples_are_reported(make_data: MakeData) -> None:
    assert group_remarks(make_data(chat_rows(9), samples="answer")) == []
    (remark,) = group_remarks(make_data(chat_rows(9), samples="answer", template="chatml", group_by_prefix=True))
    assert remark.startswith("--data.group_by_prefix: 15 of 18 examples form 6 groups of up to 3 that share half")
    unlike = [{"instruction": "a" * n, "output": "b" * 40} for n in range(1, 5)]
    (remark,) = group_remarks(make_data(unlike, template="plain", group_by_prefix=True))
    assert remark == "--data.group_by_prefix: no two examples share half of their tokens, so none are grouped."
