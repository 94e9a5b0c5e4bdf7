from __future__ import annotations

import pytest

from lit_sft.text_metrics import MixedTokenizer, exact_match, rouge_l


def test_tokens_are_words_and_single_chinese_characters() -> None:
    assert MixedTokenizer().tokenize("GPT-2 是一个 Model, 对吗？") == [*["gpt", "2"], *"是一个", "model", *"对吗"]


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        ("the cat sat", "the cat sat", 1.0),
        ("the cat", "the cat sat down", 2 * 1.0 * 0.5 / 1.5),
        ("你好吗", "你好吗", 1.0),
        ("你好", "我好", 0.5),
        ("完全不同", "abc def", 0.0),
        ("", "abc", 0.0),
    ],
)
def test_rouge_l_in_both_scripts(prediction: str, reference: str, expected: float) -> None:
    assert rouge_l(prediction, reference) == pytest.approx(expected)


def test_exact_match_ignores_surrounding_space_only() -> None:
    assert exact_match(" a b\n", "a b")
    assert not exact_match("a  b", "a b")
