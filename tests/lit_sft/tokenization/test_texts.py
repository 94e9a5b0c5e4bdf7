"""Texts cut into pieces split into the same words; samples are even, exact in size and the same every time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_modules.errors import UserError
from lit_sft.tokenization.sampling import Corpus, count_corpus
from lit_sft.tokenization.splitting import PRE_TOKENIZERS, PreTokenizerName
from lit_sft.tokenization.texts import TextFiles, pieces, read_texts

WRITTEN = st.text(st.sampled_from("aB 'sdl1,.!，。我们\n\r\t\u3000\u0301é") | st.characters(exclude_categories=["Cs"]))


@settings(max_examples=300)
@given(WRITTEN, st.integers(1, 5))
@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_pieces_have_the_words_of_the_text(name: PreTokenizerName, text: str, length: int) -> None:
    splitter = PRE_TOKENIZERS[name]()
    words = [word for word, _ in splitter.pre_tokenize_str(text)]
    parts = list(pieces(text, length))
    assert "".join(parts) == text
    assert [word for part in parts for word, _ in splitter.pre_tokenize_str(part)] == words


def test_long_text_is_cut_into_pieces_of_bounded_length() -> None:
    text = "lamp, " * 100_000
    assert max(map(len, pieces(text))) < 70_000
    assert len(list(pieces(text))) > 5


@pytest.fixture
def corpus(write: Callable[..., str]) -> Callable[..., Corpus]:
    """Two files, one with three times as much text; kinds of text alternate."""
    small = write("a.txt", "\n".join(("e" if number % 2 else "中") * 30 + str(number) for number in range(1000)))
    large = write("b.txt", "\n".join(("e" if number % 2 else "中") * 30 + f"{number}b" for number in range(3000)))

    def _corpus(max_bytes: int | None) -> Corpus:
        corpus = count_corpus(TextFiles((small, large)))
        return corpus.limited(max_bytes) if max_bytes else corpus

    return _corpus


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
def test_sample_is_even_over_files_and_over_alternating_texts(corpus: Callable[..., Corpus], share: float) -> None:
    whole = corpus(None)
    max_bytes = int(share * whole.num_bytes)
    sample = corpus(max_bytes)
    texts = list(sample.texts())
    assert sum(text.num_bytes for text in texts) == sample.used_bytes
    assert max_bytes - 200 < sample.used_bytes <= max_bytes
    for count in sample.counts:
        assert count.used_bytes / count.num_bytes == pytest.approx(share, abs=0.05)
    chinese = sum(text.num_bytes for text in texts if text.text[0] == "中")
    all_chinese = sum(text.num_bytes for text in whole.texts() if text.text[0] == "中")
    assert chinese / all_chinese == pytest.approx(share, abs=0.05)
    assert list(corpus(max_bytes).texts()) == texts
    assert set(texts) <= set(corpus(max_bytes + 20_000).texts())


def test_sample_larger_than_the_text_is_the_text(corpus: Callable[..., Corpus]) -> None:
    assert len(list(corpus(10**9).texts())) == 4000


@pytest.mark.parametrize(
    ("unit", "expected"), [("line", ["one", "two", "three"]), ("paragraph", ["one\ntwo", "three"])]
)
def test_documents_of_a_txt_file_are_those_of_a_text_run(
    write: Callable[..., str], unit: Any, expected: list[str]
) -> None:
    file = write("a.txt", "one\ntwo\n\nthree\n")
    assert [text.text for text in read_texts(TextFiles((file,), txt_documents=unit), file)] == expected


def test_unknown_unit_of_documents_is_refused() -> None:
    with pytest.raises(UserError, match="--txt_documents page: expected line, paragraph or file"):
        TextFiles(("a.txt",), txt_documents="page")
