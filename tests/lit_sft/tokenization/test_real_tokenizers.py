"""Real tokenizers and real text, if available (see CONTRIBUTING.md): GPT-2's ids, Qwen's words, exact round trips."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

import pytest

from data_modules.encoding.tokenizers import load_tokenizer
from lit_sft.tokenization.compared import compared, open_compared
from lit_sft.tokenization.comparison import compare_tokenizers
from lit_sft.tokenization.measures import measure
from lit_sft.tokenization.sampling import count_corpus
from lit_sft.tokenization.splitting import PRE_TOKENIZERS
from lit_sft.tokenization.texts import TextFiles
from lit_sft.tokenization.train import train_tokenizer

FILES = (
    "alpaca_en_800.json",
    "alpaca_zh_700.json",
    "firefly_multi_turn_22.jsonl",
    "text_en_wiki.txt",
    "text_zh_45.jsonl",
)

pytestmark = [
    pytest.mark.assets,
    pytest.mark.skipif("LIT_SFT_ASSETS" not in os.environ, reason="LIT_SFT_ASSETS is not set to a folder of models"),
    pytest.mark.skipif("LIT_SFT_RECORDS" not in os.environ, reason="LIT_SFT_RECORDS is not set to a folder of records"),
]


def asset(name: str) -> str:
    return str(Path(os.environ["LIT_SFT_ASSETS"]) / name)


@pytest.fixture(scope="module")
def files() -> TextFiles:
    return TextFiles(tuple(str(Path(os.environ["LIT_SFT_RECORDS"]) / name) for name in FILES), on_invalid="drop")


def test_words_have_the_known_ids_of_gpt2(files: TextFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_sft.tokenization.comparison.all_blocks", lambda: [])
    comparison = compare_tokenizers([asset("gpt2-tokenizer")], files.files[-1], words=["博士", "论文"])
    ids = {word: row[0].ids for word, row in comparison.words.items()}
    assert ids == {"博士": [39355, 248, 18803], "论文": [164, 106, 118, 23877, 229]}


def test_real_text_is_split_as_qwen_and_gpt2_do(files: TextFiles) -> None:
    corpus = count_corpus(files)
    for name, folder in (("qwen", "qwen2.5-tokenizer"), ("gpt2", "gpt2-tokenizer")):
        theirs, ours = load_tokenizer(asset(folder)).backend_tokenizer.pre_tokenizer, PRE_TOKENIZERS[name]()
        for text in islice(corpus.texts(), 3000):
            assert ours.pre_tokenize_str(text.text) == theirs.pre_tokenize_str(text.text), text.origin


def test_round_trip_is_exact_on_real_text(files: TextFiles, tmp_path: Path) -> None:
    trained = train_tokenizer(files.files, tmp_path / "tok", vocab_size=6000, on_invalid="drop", max_bytes=1_000_000)
    assert trained.report["entries"] == 6000
    tokenizers = [compared(load_tokenizer(str(tmp_path / "tok")), "ours"), *open_compared([asset("gpt2-tokenizer")])]
    corpus = count_corpus(files)
    measures = measure(corpus.texts(), tokenizers)
    assert [usage.changed_texts for usage in measures.usages] == [0, 0]
    assert measures.bytes.sum() == corpus.num_bytes > 1_500_000
