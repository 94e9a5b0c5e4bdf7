"""Our ids and labels equal those that the trainers made of a few rows; nobody is installed."""

from __future__ import annotations

import json

import pytest
from transformers import AutoTokenizer

from data_modules.rendering.conventions import expected_labels, resolve_convention
from tests.conventions.jobs import Job, conversation, rows_of
from tests.conventions.recorded import FILE, TOKENIZER, chosen, rows
from tests.conventions.rows import CHATML

RECORDED = {item["job"]: item["rows"] for item in json.loads(FILE.read_text(encoding="utf-8"))}


def test_every_trainer_is_recorded() -> None:
    assert {job.trainer for job in chosen()} == {"trl", "torchtune", "litgpt", "llamafactory", "axolotl"}
    assert RECORDED.keys() == {job.name for job in chosen()}


@pytest.mark.parametrize("job", chosen(), ids=lambda job: job.name)
def test_ids_and_labels_equal_the_recorded_ones(job: Job) -> None:
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    tokenizer.chat_template = CHATML
    convention = resolve_convention(job.convention, tokenizer, job.template)
    ours = [expected_labels(convention, conversation(row), job.max_length or 10**6) for row in rows_of(job, rows())]
    assert [None if labelled is None else [*labelled] for labelled in ours] == RECORDED[job.name]
    assert any(RECORDED[job.name])
