"""A lower bound of the tokens of a text never exceeds their number."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from data_modules.encoding.tokenizers import fewest_tokens
from tests.conftest import byte_tokenizer

BUNDLED = AutoTokenizer.from_pretrained("examples/tokenizer")
COMPOSED = "\u1fbe\u0308\u0301"
"""Seven bytes that are two in form NFC."""
TEXTS = (
    "", "a", " " * 300, "\n" * 300, "<|im_end|>" * 50, "a" * 300, "羊" * 300, "e\u0301" * 300, COMPOSED * 300,
    "\u1100\u1161\u11a8" * 300, "\u212a" * 300, "\u0004" * 300, "🐑" * 300, " the" * 300, "1234567890" * 30, "=" * 300,
)  # fmt: skip


def num_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    return len(tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids)


def with_normalizer() -> PreTrainedTokenizerBase:
    """The bundled tokenizer, but texts are put into form NFC first."""
    tokenizer = AutoTokenizer.from_pretrained("examples/tokenizer")
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    return tokenizer


NORMALIZED = with_normalizer()


@given(st.lists(st.text() | st.sampled_from(TEXTS)).map("".join))
def test_no_text_has_fewer_tokens(text: str) -> None:
    for tokenizer in (BUNDLED, NORMALIZED):
        assert fewest_tokens(tokenizer, text) <= num_tokens(tokenizer, text)


def test_the_longest_token_gives_the_bound() -> None:
    """Here the end token, of 13 bytes."""
    assert fewest_tokens(byte_tokenizer(), "x" * 26) == 2
    assert fewest_tokens(byte_tokenizer(), "<|endoftext|>" * 2 + "x") == 3
    assert fewest_tokens(byte_tokenizer(), "") == 0


def test_there_is_no_bound_for_tokenizers_that_may_lose_text() -> None:
    words = Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    assert fewest_tokens(PreTrainedTokenizerFast(tokenizer_object=words), "a " * 1000) == 0
    folding, removing, greedy = byte_tokenizer(), byte_tokenizer(), byte_tokenizer()
    folding.backend_tokenizer.normalizer = normalizers.Replace(" ", "")
    parts = [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    removing.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
    end = AddedToken("<end>", rstrip=True, special=True, normalized=False)  # covers all white space after it
    greedy.add_special_tokens({"additional_special_tokens": [end]})
    for tokenizer in (folding, removing, greedy):
        assert fewest_tokens(tokenizer, " " * 1000) == 0
    assert num_tokens(greedy, "<end>" + " " * 1000) == 1


def test_bytes_without_a_token_do_not_count() -> None:
    vocab = {token: index for token, index in byte_tokenizer().get_vocab().items() if token != "x"}
    lossy = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    lossy.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    lossy.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=lossy)
    assert num_tokens(tokenizer, "x" * 1000) == fewest_tokens(tokenizer, "x" * 1000) == 0
    assert fewest_tokens(tokenizer, "x" * 1000 + "y") == 1


@pytest.mark.assets
@pytest.mark.skipif("LIT_SFT_ASSETS" not in os.environ, reason="LIT_SFT_ASSETS is not set to a folder of models")
@pytest.mark.parametrize("name", ["gpt2-tokenizer", "qwen2.5-tokenizer", "smollm2-135m"])
def test_no_text_has_fewer_tokens_with_real_tokenizers(name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(Path(os.environ["LIT_SFT_ASSETS"]) / name))
    for text in TEXTS:
        assert fewest_tokens(tokenizer, text) <= num_tokens(tokenizer, text)
    assert fewest_tokens(tokenizer, "x" * 12_800) >= 100
