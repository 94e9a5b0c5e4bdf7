"""How text is split into words before the merges: no token ever spans two of these words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from tokenizers import Regex, pre_tokenizers

PreTokenizerName = Literal["gpt2", "qwen", "gpt2_han"]

_CONTRACTION = "'(?i:[sdmt]|ll|re|ve)"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_DIGIT = r"\p{N}"
_SYMBOLS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_LINE_BREAKS = r"\s*[\r\n]+"
_SPACES = r"\s+(?!\S)|\s+"  # the space before a word stays with the word

QWEN_WORDS = "|".join((_CONTRACTION, _WORD, _DIGIT, _SYMBOLS, _LINE_BREAKS, _SPACES))
"""Splits as Qwen's tokenizers do, and as GPT-4's does except for numbers: a word includes one space or sign before it,
every digit is a word, and line breaks belong to the signs or spaces before them."""

HAN = "[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]"
"""A Chinese character or full-width sign."""


def _gpt2() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _qwen() -> pre_tokenizers.PreTokenizer:
    words = pre_tokenizers.Split(Regex(QWEN_WORDS), "isolated")
    return pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _gpt2_han() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(HAN), "isolated"), _gpt2()])


PRE_TOKENIZERS: dict[PreTokenizerName, Callable[[], pre_tokenizers.PreTokenizer]] = {
    "gpt2": _gpt2,
    "qwen": _qwen,
    "gpt2_han": _gpt2_han,
}
assert set(PRE_TOKENIZERS) == set(get_args(PreTokenizerName))
