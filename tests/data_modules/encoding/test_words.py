"""The ids of the words of a text are the ids that the tokenizer itself finds."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from data_modules.encoding import words
from data_modules.encoding.words import WordIds, num_added_tokens, words_of
from tests.conftest import byte_tokenizer

CJK = "[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]"
MARKERS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool>")
FRAGMENTS = (
    "Hello", " world", "the", "don't", "'LL", "'s", "'", "\n", "\n\n", "\r\n", " \n", "\n ", " ", "  ", "\t", "\x0b",
    "\x0c", "\x00", "\x1c", "\x1f", "\x7f", ":", ")", "...", "--", "?!", "12", "4567 ", "3.50", "_", "é", "e\u0301",
    "\u0301", "ﬁ", "İ", "ß", "ſ", "\u212a", "\u037e", "’", "“q”", "—", "½", "٣", "Ⅷ", "中文", "字。", "🙂", "\u200d",
    "\u1100\u1161", "नि",
)  # fmt: skip
SPACES = ("\x85", "\u00a0", "\u2003", "\u2028", "\u3000", "\u200b", "\u180e")


def split(source: str) -> Any:
    return pre_tokenizers.Split(Regex(source), "isolated")


def byte_level(*, use_regex: bool) -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


SPLITTERS = {
    "gpt2": byte_level(use_regex=True),
    "qwen": pre_tokenizers.Sequence([split(words._QWEN), byte_level(use_regex=False)]),
    "llama3": pre_tokenizers.Sequence([split(words._LLAMA3), byte_level(use_regex=False)]),
    "with cjk": pre_tokenizers.Sequence([split(CJK), byte_level(use_regex=True)]),
}


@cache
def trained(name: str, *, normalizer: bool = True) -> PreTrainedTokenizerFast:
    """A tokenizer with merges of its own, inside words and around white space."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = SPLITTERS[name], decoders.ByteLevel()
    if normalizer:
        tokenizer.normalizer = normalizers.NFC()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["".join(FRAGMENTS) * 2, " ".join(FRAGMENTS), "\n".join(FRAGMENTS)], trainer)
    tokenizer.add_tokens([AddedToken(marker, special=marker != "<tool>", normalized=False) for marker in MARKERS])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def known(tokenizer: PreTrainedTokenizerBase) -> WordIds:
    found = words_of(tokenizer, num_added_tokens(tokenizer))
    assert found is not None
    return found


def ids(tokenizer: PreTrainedTokenizerBase, text: str, *, plain: bool = False) -> list[int]:
    backend = tokenizer.backend_tokenizer
    backend.encode_special_tokens = plain
    found: list[int] = backend.encode(text, add_special_tokens=False).ids
    backend.encode_special_tokens = False
    return found


def texts() -> st.SearchStrategy[str]:
    character = st.characters(exclude_categories=("Cs",))
    fragment = (
        st.sampled_from((*FRAGMENTS, *FRAGMENTS, *SPACES, *MARKERS)) | character | st.characters(max_codepoint=127)
    )
    return st.lists(fragment, max_size=25).map("".join)


@pytest.mark.parametrize(("name", "normalizer"), [*((name, True) for name in SPLITTERS), ("gpt2", False)])
def test_words_have_the_ids_of_the_text(name: str, normalizer: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "_RARE", 3)  # texts in other scripts too, which are otherwise left to the tokenizer
    tokenizer = trained(name, normalizer=normalizer)
    by_word, found = known(tokenizer), 0

    @settings(max_examples=150)
    @given(texts(), st.booleans())
    def check(text: str, plain: bool) -> None:
        nonlocal found
        of_words = by_word.of(text, plain=plain)
        assert of_words is None or of_words == ids(tokenizer, text, plain=plain)
        found += of_words is not None

    check()
    assert found > 75


@pytest.mark.assets
@pytest.mark.skipif("LIT_SFT_ASSETS" not in os.environ, reason="LIT_SFT_ASSETS is not set to a folder of models")
@pytest.mark.parametrize("name", ["gpt2-tokenizer", "qwen2.5-tokenizer", "smollm2-135m"])
def test_words_have_the_ids_of_the_text_with_real_tokenizers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "_RARE", 3)
    tokenizer = AutoTokenizer.from_pretrained(str(Path(os.environ["LIT_SFT_ASSETS"]) / name))
    by_word = known(tokenizer)

    @settings(max_examples=1000)
    @given(texts(), st.booleans())
    def check(text: str, plain: bool) -> None:
        of_words = by_word.of(text, plain=plain)
        assert of_words is None or of_words == ids(tokenizer, text, plain=plain)

    check()


def test_markers_become_tokens_unless_they_are_plain_text() -> None:
    tokenizer = trained("qwen")
    by_word, text = known(tokenizer), "<|im_start|>user\nHi there<|im_end|>\n<tool>"
    assert by_word.of(text, plain=False) == ids(tokenizer, text)
    assert by_word.of(text, plain=True) is None
    assert by_word.of("Hi there", plain=True) == ids(tokenizer, "Hi there")


def test_what_only_the_tokenizer_can_tell_is_left_to_it() -> None:
    by_word = known(trained("gpt2"))
    for text in ("中文中文", "a long text with a space\u00a0of another kind", "éßéß中文"):
        assert by_word.of(text, plain=False) is None
    for setting in ({"lstrip": True}, {"rstrip": True}, {"single_word": True}, {"normalized": True}):
        tokenizer = byte_like(SPLITTERS["gpt2"])
        tokenizer.add_tokens([AddedToken("<x>", **{"normalized": False, **setting})])
        by_word = known(tokenizer)
        assert by_word.of("a <x> b", plain=False) is None
        assert by_word.of("a x b", plain=False) == ids(tokenizer, "a x b")
        assert by_word.of("a word that is naïve, in a long text", plain=False) is None


def byte_like(splitter: Any) -> PreTrainedTokenizerFast:
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = splitter
    return tokenizer


def test_other_kinds_of_tokenizers_are_not_supported() -> None:
    unknown = pre_tokenizers.Sequence([split(r"\p{L}+|\s"), byte_level(use_regex=False)])
    twice = pre_tokenizers.Sequence([split(words._QWEN), byte_level(use_regex=True)])
    removing = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(CJK), "removed"), byte_level(use_regex=True)])
    spaced = pre_tokenizers.ByteLevel(add_prefix_space=True)
    for splitter in (unknown, twice, removing, spaced, byte_level(use_regex=False), pre_tokenizers.Whitespace()):
        tokenizer = byte_like(splitter)
        assert words_of(tokenizer, num_added_tokens(tokenizer)) is None
    folding, random = byte_like(SPLITTERS["gpt2"]), byte_like(SPLITTERS["gpt2"])
    folding.backend_tokenizer.normalizer = normalizers.Lowercase()
    random.backend_tokenizer.model.dropout = 0.1
    for tokenizer in (folding, random):
        assert words_of(tokenizer, num_added_tokens(tokenizer)) is None


def test_a_tokenizer_that_disagrees_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if another version of its library found other words."""
    monkeypatch.setattr(words, "_for_ascii", lambda source: r"\w+|\s|\S")
    tokenizer = trained("gpt2").__class__(tokenizer_object=trained("gpt2").backend_tokenizer)
    assert words_of(tokenizer, num_added_tokens(tokenizer)) is None


def test_tokens_added_later_count() -> None:
    tokenizer = byte_like(SPLITTERS["gpt2"])
    before = known(tokenizer).of("a <new> b", plain=False)
    assert before == ids(tokenizer, "a <new> b")
    tokenizer.add_tokens([AddedToken("<new>", normalized=False)])
    after = known(tokenizer).of("a <new> b", plain=False)
    assert after == ids(tokenizer, "a <new> b") != before


def test_a_word_that_becomes_a_special_token_counts() -> None:
    tokenizer = trained("gpt2")
    text = "xthex the"
    before = known(tokenizer).of(text, plain=False)
    assert before == ids(tokenizer, text)
    size = len(tokenizer)
    tokenizer.add_special_tokens({"pad_token": "the"})
    assert len(tokenizer) == size  # it was in the vocabulary
    after = known(tokenizer).of(text, plain=False)
    assert after == ids(tokenizer, text) != before


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "_MOST_WORDS", 10)
    tokenizer = byte_like(SPLITTERS["gpt2"])
    by_word, text = known(tokenizer), " ".join(map(str, range(100))) + " " + "x" * 1000
    assert by_word.of(text, plain=False) == ids(tokenizer, text)
    assert len(by_word._known) <= 10
    assert max(map(len, by_word._known)) < 100
