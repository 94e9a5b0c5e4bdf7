from __future__ import annotations

import pytest

from lit_sft.metrics.text import MixedTokenizer, chrf, distinct, exact_match, repetition, rouge, rouge_l


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


def test_tokenisations_are_named_and_differ() -> None:
    assert rouge("你好吗", "你好吧", "word") == {"rouge1_word": 0.0, "rouge2_word": 0.0, "rougeL_word": 0.0}
    assert rouge("你好吗", "你好吧", "character")["rouge1_character"] == pytest.approx(2 / 3)
    assert rouge("你好吗", "你好吧", "mixed")["rouge2_mixed"] == pytest.approx(1 / 2)
    assert rouge("New York is big", "new york was big", "word")["rougeL_word"] == pytest.approx(3 / 4)
    assert rouge("ab", "ba", "character")["rougeL_character"] == pytest.approx(1 / 2)


def rouge_l_f_beta(prediction: str, reference: str, beta: float) -> float:
    """ROUGE-L on characters with recall weighted by beta.

    A published report passed the length of the question as beta by mistake.
    """
    table = [[0] * (len(reference) + 1) for _ in range(len(prediction) + 1)]
    for i, one in enumerate(prediction):
        for j, other in enumerate(reference):
            table[i + 1][j + 1] = table[i][j] + 1 if one == other else max(table[i][j + 1], table[i + 1][j])
    precision, recall = table[-1][-1] / len(prediction), table[-1][-1] / len(reference)
    return (1 + beta**2) * precision * recall / (recall + beta**2 * precision) if precision else 0.0


@pytest.mark.parametrize(
    ("prediction", "reference", "question_length", "printed", "right"),
    [
        # that report's own examples
        ("羊侃的字是公祖。", "羊侃的字是祖忻。", 8, 0.875, 0.875),
        (
            "拜仁慕尼黑二队的主场位于慕尼黑的绿森林体育场。",
            "拜仁慕尼黑二队的主场位于慕尼黑的绿森林体育场。",
            12,
            1.0,
            1.0,
        ),
        # if the lengths differ, using the question's length as beta turns the F-score into recall
        ("甲乙丙丁", "甲乙", 10, 101 * 0.5 / (1 + 100 * 0.5), 2 / 3),
        ("甲", "乙", 10, 0.0, 0.0),
    ],
)
def test_values_printed_in_the_report_and_the_correct_ones(
    prediction: str, reference: str, question_length: int, printed: float, right: float
) -> None:
    assert rouge_l_f_beta(prediction, reference, question_length) == pytest.approx(printed)
    assert rouge_l_f_beta(prediction, reference, 1) == pytest.approx(right)
    assert rouge(prediction, reference, "character")["rougeL_character"] == pytest.approx(right)


def test_chrf_compares_characters() -> None:
    assert chrf("老乌龟叫石头。", "老乌龟叫石头。") == pytest.approx(1.0)
    assert 0 < chrf("老乌龟叫木头。", "老乌龟叫石头。") < 1
    assert chrf("abc", "xyz") == 0.0


def test_distinct_ngrams_are_counted() -> None:
    assert distinct("a b a b a", 2) == (2, 4)
    assert distinct("a", 2) == (0, 0)
    assert repetition("a b a b a", 2) == pytest.approx(0.5)
