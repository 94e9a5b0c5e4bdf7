"""Text runs refuse files that the user named and that yield no document, and say why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from data_modules.errors import UserError
from data_modules.text_data_module import TextDataModule
from tests.conftest import articles

Write = Callable[..., str]

SHORT = {"min_length": {"characters": 1000}}


@pytest.fixture
def make(write: Write, tokenizer: Any) -> Callable[..., TextDataModule]:
    def _make(**settings: Any) -> TextDataModule:
        train = write("train.jsonl", [{"text": text} for text in articles(30)])
        given = {"train": train, "val_fraction": 0.0, "test_fraction": 0.0, "tokenizer": tokenizer, "block_size": 32}
        return TextDataModule(**{**given, **settings})

    return _make


def refusal(data: TextDataModule, stage: str = "fit") -> str:
    data.prepare_data()
    with pytest.raises(UserError) as error:
        data.setup(stage)
    return str(error.value)


def test_validation_documents_that_are_all_in_the_test_split_are_refused(make: Any, write: Write) -> None:
    held_out = write("val.jsonl", [{"text": f"Held out {n}."} for n in range(3)])
    assert refusal(make(val=held_out, test=held_out)) == (
        f"{held_out}: no document is left for validation: 3 also in the test split. Set `--data.val` to other "
        "documents."
    )


def test_training_documents_that_are_all_held_out_are_refused(make: Any) -> None:
    data = make()
    (train,) = data.sources.files["train"]
    assert refusal(make(val=train)) == (
        f"{train}: no document is left for training: 30 also in a held-out split. Provide more documents."
    )


@pytest.mark.parametrize("split", ["val", "test"])
def test_held_out_documents_that_cleaning_drops_are_refused(make: Any, write: Write, split: str) -> None:
    rows = [{"text": "Short."}, {"text": "x" * 2000}, {"text": "Short too."}, {"text": 5}]
    files = write("other.jsonl", rows)
    cleaning = [SHORT, {"max_length": {"characters": 1500}}]
    data = make(cleaning=cleaning, on_invalid="drop", **{split: files})
    purpose = {"val": "validation", "test": "testing"}[split]
    assert refusal(data).startswith(
        f"{files}: no document is left for {purpose}: 3 dropped by cleaning (2 of them by the rule `min_length`), "
        f"1 invalid: 1 like {files}:4: field 'text' is the number 5"
    )
    assert refusal(data).endswith("Change the cleaning rules, or provide other documents.")


def test_rule_that_drops_every_training_document_is_named(make: Any) -> None:
    assert refusal(make(cleaning=["nfc", SHORT])).endswith(
        "train.jsonl: no document is left for training: 30 dropped by cleaning (the rule `min_length`). Change the "
        "cleaning rules, or provide other documents."
    )


def test_rule_that_drops_every_document_of_a_source_is_named(make: Any, write: Write) -> None:
    files = {name: write(f"{name}.jsonl", [{"text": f"{name} {n}."} for n in range(4)]) for name in ("a", "b")}
    mix = [{"name": "a", "files": files["a"]}, {"name": "b", "files": files["b"], "cleaning": [SHORT]}]
    assert refusal(make(train=None, mix=mix)).startswith(
        f"--data.mix b: {files['b']}: no document is left for training: 4 dropped by cleaning (the rule `min_length`)."
    )


def test_training_documents_that_are_all_held_out_by_a_fraction_are_counted(make: Any, write: Write) -> None:
    file = write("one.jsonl", [{"text": "The only document."}])
    assert refusal(make(train=file, val_fraction=0.999)) == (
        f"{file}: no document is left for training: 1 held out. Provide more documents, or lower `--data.val_fraction`."
    )


def test_a_command_checks_the_splits_that_it_needs(make: Any, write: Write) -> None:
    other, short = write("other.jsonl", [{"text": "x" * 2000}]), write("short.jsonl", [{"text": "Short."}])
    data = make(val=other, test=short, cleaning=[SHORT])
    data.prepare_data()
    data.setup("validate")
    assert "no document is left for testing: 1 dropped by cleaning" in refusal(data, "test")


def test_files_without_a_valid_document_do_not_advise_a_format(make: Any, write: Write) -> None:
    file = write("rows.jsonl", [{"messages": []}, {"messages": []}])
    with pytest.raises(UserError, match=r"all 2 records are invalid: 2 like .*\. Correct them\.$"):
        make(train=file, on_invalid="drop").prepare_data()
