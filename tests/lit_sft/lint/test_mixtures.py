"""Mixtures: the rows of each source are linted as they are trained, with its own columns, template and mask."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from data_modules.sft_data_module import SFTDataModule
from lit_sft.__main__ import main
from lit_sft.lint.data_lint import lint_data
from lit_sft.lint.findings import Findings, Report
from lit_sft.lint.rules import RULES
from tests.lit_sft.lint.conftest import CLEAN, fired

MAPPED = [{"question": "Who keeps the mill?", "reply": "Nobody does."}, {"question": "And 5?", "reply": "Five."}]
COLUMNS = {"instruction": "question", "output": "reply"}


@pytest.fixture
def lint(write: Callable[..., str], tokenizer: PreTrainedTokenizerFast) -> Callable[..., Report]:
    def _lint(*, val: bool = False, **own: object) -> Report:
        mix = [
            {"name": "chats", "files": write("chats.jsonl", CLEAN)},
            {"name": "mapped", "files": write("mapped.jsonl", MAPPED), "columns": COLUMNS, **own},
        ]
        held_out = {"val": write("val.jsonl", [CLEAN[0]])} if val else {"val_fraction": 0.0}
        settings = {"tokenizer": tokenizer, "template": "chatml", "test_fraction": 0.0, "max_length": 512} | held_out
        data = SFTDataModule(mix=mix, **settings)  # type: ignore[arg-type]
        return lint_data(data, Findings(frozenset(RULES)), has_tokenizer=True, is_random=True)

    return _lint


def test_columns_are_those_of_the_source(lint: Callable[..., Report]) -> None:
    report = lint()
    assert (fired(report), report.rows) == ({}, {"train": len(CLEAN) + len(MAPPED)})


def test_mask_is_that_of_the_source(lint: Callable[..., Report]) -> None:
    report = lint(mask="whole_sequence")
    assert fired(report)["everything-supervised"] == len(MAPPED)
    places = {found.origin for found in report.findings.examples["everything-supervised"]}
    assert {Path(place).name for place in places} == {"mapped.jsonl:1", "mapped.jsonl:2"}
    assert report.remarks[-1] == "mapped: template chatml, mask whole_sequence"


def test_template_is_that_of_the_source(lint: Callable[..., Report]) -> None:
    tokens = lint(mask="whole_sequence", template="plain").findings.examples["everything-supervised"][0].row
    assert tokens is not None
    others = lint(mask="whole_sequence").findings.examples["everything-supervised"][0].row
    assert others is not None
    assert len(tokens.ids) < len(others.ids)


def test_files_of_a_held_out_split_are_read_with_the_settings_of_the_run(lint: Callable[..., Report]) -> None:
    report = lint(val=True, mask="whole_sequence")
    assert report.rows == {"train": len(CLEAN) + len(MAPPED), "val": 1}
    assert fired(report)["everything-supervised"] == len(MAPPED)
    assert fired(report)["split-leak"] == 1


def test_mixture_needs_no_config(write: Callable[..., str], tmp_path: Path) -> None:
    mix = [{"name": "mapped", "files": write("mapped.jsonl", MAPPED), "columns": COLUMNS}]
    assert main(["lint", "--data.mix", json.dumps(mix), "--sarif", str(tmp_path / "lint.sarif")]) == 0
    assert (tmp_path / "lint.sarif").is_file()
