"""Memory: estimates for larger samples, and samples that fit."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from lit_sft.tokenization import memory
from lit_sft.tokenization.memory import within_memory
from lit_sft.tokenization.sampling import Corpus, count_corpus
from lit_sft.tokenization.splitting import PRE_TOKENIZERS
from lit_sft.tokenization.texts import TextFiles

GB = 10**9


def english(number: int) -> Iterator[str]:
    """Lines of words, few of which are new after a while."""
    rng = random.Random(0)
    for _ in range(number):
        yield " ".join(f"w{int(rng.paretovariate(0.8))}" for _ in range(40))


def chinese(number: int) -> Iterator[str]:
    """Lines of clauses, nearly all of which are new."""
    rng = random.Random(1)
    for _ in range(number):
        yield "，".join("".join(chr(0x4E00 + rng.randrange(3000)) for _ in range(9)) for _ in range(6))


@pytest.fixture
def corpus(write: Callable[..., str]) -> Callable[..., Corpus]:
    def _corpus(*lines: Iterator[str]) -> Corpus:
        files = tuple(write(f"{number}.txt", "\n".join(each)) for number, each in enumerate(lines))
        return count_corpus(TextFiles(files))

    return _corpus


def needed(corpus: Corpus) -> float:
    """The estimate for the whole corpus, from all of its words."""
    splitter = PRE_TOKENIZERS["qwen"]()
    words = {word for text in corpus.texts() for word, _ in splitter.pre_tokenize_str(text.text)}
    return memory._PROCESS + sum(len(word) * memory._PER_BYTE + memory._PER_WORD for word in words)


@pytest.mark.parametrize("kinds", [(english,), (chinese,), (english, chinese)], ids=["English", "Chinese", "both"])
def test_estimate_from_a_sixteenth_is_close_to_the_count(
    corpus: Callable[..., Corpus], kinds: tuple[Callable[[int], Iterator[str]], ...]
) -> None:
    whole = corpus(*(kind(3000) for kind in kinds))
    growth = memory.growth_in(whole.limited(whole.num_bytes // 16), "qwen")
    words = needed(whole) - memory._PROCESS
    assert 0.9 * words < growth.memory(whole.num_bytes) - memory._PROCESS < 1.3 * words


def test_text_that_fits_is_used_whole(corpus: Callable[..., Corpus], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = corpus(chinese(1000))
    assert within_memory(whole, "qwen", 4 * GB) is whole
    monkeypatch.setattr(memory, "_PILOT", 50_000)
    monkeypatch.setattr(memory, "_PROCESS", 10_000)
    assert within_memory(whole, "gpt2_han", 9_000_000) is whole  # few words: every character is one


def test_a_few_long_texts_are_sampled_without_an_estimate(
    corpus: Callable[..., Corpus], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_PROCESS", 10_000)
    books = ["，".join(chinese(160)) for _ in range(3)]
    whole = corpus(*(iter([f"{number}{book}"]) for number, book in enumerate(books)))
    sample = within_memory(whole, "qwen", 6_000_000)
    assert 0 < sample.used_bytes < whole.num_bytes
    assert needed(sample) <= 6_000_000


def test_text_that_does_not_fit_is_sampled_to_the_limit(
    corpus: Callable[..., Corpus], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_PROCESS", 10_000)
    whole = corpus(chinese(1000))
    sample = within_memory(whole, "qwen", 9_000_000)
    assert sample.used_bytes < whole.num_bytes
    assert 0.85 * 9_000_000 < needed(sample) <= 9_000_000
    assert within_memory(whole, "qwen", 9_000_000).used_bytes == sample.used_bytes
