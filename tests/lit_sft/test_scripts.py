"""The language that a text seems to be in."""

from __future__ import annotations

import pytest

from lit_sft.scripts import language_of, script_shares


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The ferry leaves at nine.", "en"),
        ("La barque part à neuf heures.", "en"),  # by script only
        ("渡船九点开。", "zh"),
        ("用 Transformer 和 GPT-2 训练的模型", "zh"),
        ("The word 船 means boat.", "en"),
        ("わたしは船に乗ります。", None),
        ("Паром уходит в девять.", None),
        ("나는 배를 탄다", None),
        ("1, 2, 3 ...", None),
        ("", None),
    ],
)
def test_language_by_script(text: str, language: str | None) -> None:
    assert language_of(text) == language


def test_shares_of_scripts() -> None:
    assert script_shares("ab船c") == {"Latin": 0.75, "Han": 0.25}
    assert script_shares("12 !") == {}
