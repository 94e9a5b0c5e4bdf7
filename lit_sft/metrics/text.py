"""Compares answers with references: exact match, ROUGE and chrF, for Latin scripts and Chinese alike."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

_MAX_TOKENS = 1000
"""Maximum number of tokens compared: the longest common subsequence is quadratic and in pure Python."""

# Each Han, kana or Hangul character is a token; other letters and digits form words.
_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_TOKEN = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")


def words_of(text: str) -> list[str]:
    """Words in lower case, and CJK characters one by one."""
    return _TOKEN.findall(text.lower())


class MixedTokenizer:
    """One token per CJK character, one per word of any other script, in lower case."""

    def tokenize(self, text: str) -> list[str]:
        """Split a text, up to 1000 tokens."""
        return words_of(text)[:_MAX_TOKENS]


class CharacterTokenizer:
    """One token per character, without white space."""

    def tokenize(self, text: str) -> list[str]:
        """Split a text, up to 1000 tokens."""
        return list("".join(text.split())[:_MAX_TOKENS])


class WordTokenizer:
    """Splits at white space, in lower case; Chinese yields whole sentences."""

    def tokenize(self, text: str) -> list[str]:
        """Split a text, up to 1000 tokens."""
        return text.lower().split()[:_MAX_TOKENS]


Tokenization = Literal["mixed", "character", "word"]

_TOKENIZERS = {"mixed": MixedTokenizer, "character": CharacterTokenizer, "word": WordTokenizer}


@cache
def _scorer(tokenization: Tokenization) -> Any:
    # imported on first use: it imports all of nltk, which only scoring answers needs
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=_TOKENIZERS[tokenization]())


def rouge(prediction: str, reference: str, tokenization: Tokenization = "mixed") -> dict[str, float]:
    """ROUGE-1, -2 and -L F1, 0 to 1, named `rougeL_mixed` and so on. Source: the package rouge-score."""
    scores = _scorer(tokenization).score(reference, prediction)
    return {f"{name}_{tokenization}": float(score.fmeasure) for name, score in scores.items()}


def rouge_l(prediction: str, reference: str) -> float:
    """ROUGE-L F1, 0 to 1, on mixed tokens."""
    return rouge(prediction, reference)["rougeL_mixed"]


def chrf(prediction: str, reference: str) -> float:
    """chrF2, 0 to 1: F-score of character n-grams up to length six. Source: sacrebleu."""
    from sacrebleu.metrics import CHRF

    return float(CHRF().sentence_score(prediction, [reference]).score) / 100


def distinct(text: str, size: int) -> tuple[int, int]:
    """The number of distinct n-grams of `size` mixed tokens in a text, and of all n-grams."""
    tokens = MixedTokenizer().tokenize(text)
    runs = [tuple(tokens[start : start + size]) for start in range(len(tokens) - size + 1)]
    return len(set(runs)), len(runs)


def exact_match(prediction: str, reference: str) -> bool:
    """Whether the two are equal, ignoring surrounding white space."""
    return prediction.strip() == reference.strip()


def repetition(text: str, size: int = 4) -> float:
    """Share of n-grams of `size` tokens that repeat earlier ones, 0 to 1."""
    count, total = distinct(text, size)
    return 1 - count / total if total else 0.0


def mean(values: Sequence[float]) -> float:
    """The mean of at least one value."""
    return sum(values) / len(values)
