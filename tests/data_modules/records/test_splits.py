from __future__ import annotations

import math

import pytest

from data_modules.errors import UserError
from data_modules.records.splits import Sources, held_out_fractions


@pytest.mark.parametrize(("val", "test"), [(math.nan, 0.0), (0.0, math.nan), (-0.1, 0.0), (0.5, 0.5), (math.inf, 0.0)])
def test_impossible_shares_are_refused(val: float, test: float) -> None:
    with pytest.raises(UserError, match=f"--data.val_fraction {val} --data.test_fraction {test}: expected shares"):
        held_out_fractions(val, test)


def test_an_unknown_format_is_refused_with_the_nearest_name() -> None:
    expected = "--data.format share_gpt: expected one of messages, sharegpt, .*; did you mean sharegpt?"
    with pytest.raises(UserError, match=expected):
        Sources({"train": ["rows.jsonl"]}, format="share_gpt")
