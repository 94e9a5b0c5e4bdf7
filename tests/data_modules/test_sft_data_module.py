"""The data module refuses wrong settings when it is made: Python callers have no parser that checks them first."""

from __future__ import annotations

import re
from typing import Any

import pytest

from data_modules.errors import UserError
from data_modules.sft_data_module import SFTDataModule


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"reduction": "tokens"}, "--data.reduction tokens: expected one of token, sample, turn; did you mean token?"),
        ({"over_long": "cut"}, "--data.over_long cut: expected one of drop, truncate, split, error."),
        ({"samples": "answers"}, "--data.samples answers: expected one of conversation, answer; did you mean answer?"),
        ({"on_invalid": "skip"}, "--data.on_invalid skip: expected one of error, drop."),
        ({"text_prompts": "x"}, "--data.text_prompts x: expected one of question, beginning."),
        ({"mask": "output"}, "--data.mask output: expected one of whole_sequence, output_only, firefly_multi_turn"),
        ({"mask": None}, "--data.mask None: expected one of whole_sequence, output_only, firefly_multi_turn."),
        ({"template": "alpacca"}, "--data.template alpacca: expected one of auto, alpaca, "),
        ({"format": "alpacca"}, "--data.format alpacca: expected one of messages, sharegpt, "),
        ({"num_workers": -1}, "--data.num_workers -1: expected 0 or more processes."),
        ({"val_fraction": float("nan")}, "--data.val_fraction nan --data.test_fraction 0.05: expected shares"),
    ],
)
def test_wrong_settings_are_refused_by_name(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        SFTDataModule("rows.jsonl", **setting)


def test_settings_that_may_be_left_out_are_accepted_as_none() -> None:
    data = SFTDataModule("rows.jsonl", format=None, text_prompts=None, num_workers=0)
    assert (data.sources.format, data.num_workers) == (None, 0)
