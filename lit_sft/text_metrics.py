"""How near a generated answer is to its reference: exact match and ROUGE-L, for Latin scripts and Chinese alike."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

_MAX_TOKENS = 1000
"""The longest common subsequence is quadratic and in pure Python."""

# Han, kana and Hangul characters are a token each; other letters and digits form words.
_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_TOKEN = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")


class MixedTokenizer:
    """One token per CJK character, one per word of any other script, in lower case."""

    def tokenize(self, text: str) -> list[str]:
        return _TOKEN.findall(text.lower())[:_MAX_TOKENS]


@cache
def _scorer() -> Any:
    # imported when first used: it brings all of nltk, which only `test` has a use for
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=MixedTokenizer())


def rouge_l(prediction: str, reference: str) -> float:
    """ROUGE-L F1, 0 to 1, on mixed tokens. Source: the package rouge-score."""
    return float(_scorer().score(reference, prediction)["rougeL"].fmeasure)


def exact_match(prediction: str, reference: str) -> bool:
    """Equal but for surrounding space."""
    return prediction.strip() == reference.strip()


def repetition(text: str, size: int = 4) -> float:
    """Share of the runs of `size` tokens that have stood in the text before, 0 to 1."""
    tokens = MixedTokenizer().tokenize(text)
    runs = [tuple(tokens[start : start + size]) for start in range(len(tokens) - size + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def mean(values: Sequence[float]) -> float:
    """The mean of at least one value."""
    return sum(values) / len(values)
