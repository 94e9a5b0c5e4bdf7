from __future__ import annotations

import random
from functools import partial

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from data_modules.encoding import text_encoder
from data_modules.encoding.long_texts import encode_long
from data_modules.encoding.sentence_ends import sentence_ends
from data_modules.encoding.strings import StringEncoder
from data_modules.encoding.text_encoder import TextEncoder

WORDS = [
    "the",
    "house",
    "houses",
    "there",
    "isn't",
    "3.14",
    "1234567",
    "走了",
    "，",
    "。",
    "\n\n",
    "  ",
    "é",
    "🙂",
    "x_y",
    "<|end|>",
]


def text_of(count: int, seed: int = 0) -> str:
    rng = random.Random(seed)
    return "".join(rng.choice(WORDS) + rng.choice(["", " ", " ", ". "]) for _ in range(count))


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE like GPT-2's, with tokens of several words' letters and of parts of characters."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=alphabet, special_tokens=["<|end|>"], show_progress=False
    )
    tokenizer.train_from_iterator([text_of(2000)], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")


@pytest.mark.parametrize("window", [300, 1000, 5000])
def test_windows_give_the_ids_of_the_whole_text(tokenizer: PreTrainedTokenizerFast, window: int) -> None:
    strings = StringEncoder(tokenizer, "<|end|>", "<|end|>")
    text = text_of(4000, seed=1)
    (whole,) = strings.contents([text])
    parts = list(encode_long(text, strings.contents_with_places, window=window, overlaps=(150, 280)))
    assert "".join(part.text for part in parts) == text
    assert np.concatenate([part.ids for part in parts]).tolist() == whole
    assert len(parts) > len(text) / window
    assert max(len(part.text) for part in parts) <= window
    at, ends = 0, []
    for part in parts:
        ends += [at + int(end) for end in sentence_ends(part.text)[0]]
        at += len(part.text)
    assert ends == sentence_ends(text)[0].tolist()


def test_text_without_a_place_to_cut_is_one_window(tokenizer: PreTrainedTokenizerFast) -> None:
    strings = StringEncoder(tokenizer, "<|end|>", "<|end|>")
    text = "house house. " + "house" * 500
    (whole,) = strings.contents([text])
    parts = list(encode_long(text, strings.contents_with_places, window=300, overlaps=(150, 280)))
    assert np.concatenate([part.ids for part in parts]).tolist() == whole


def test_a_long_document_is_encoded_like_a_short_one(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = text_of(20000)
    (short,) = TextEncoder(tokenizer).encode([text])
    monkeypatch.setattr(text_encoder, "WINDOW", 50_000)
    (long,) = TextEncoder(tokenizer).encode([text])
    assert long.ids.tolist() == short.ids.tolist()
    assert long.sentence_ends.tolist() == short.sentence_ends.tolist()
    assert long.num_bytes == short.num_bytes == len(text.encode())


def test_a_tokenizer_that_puts_a_mark_before_every_text_has_no_mark_inside_a_long_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    marked = Tokenizer(models.BPE(unk_token="<unk>"))
    marked.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    marked.decoder = decoders.Replace("▁", " ")
    special = ["<unk>", "<|end|>"]
    marked.train_from_iterator(
        [text_of(2000)], trainers.BpeTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=marked, eos_token="<|end|>", unk_token="<unk>")
    text = text_of(3000, seed=2) + "the end."
    (short,) = TextEncoder(tokenizer).encode([text])
    parts = partial(text_encoder.encode_long, window=2000, overlaps=(400, 900))
    monkeypatch.setattr(text_encoder, "encode_long", parts)
    monkeypatch.setattr(text_encoder, "WINDOW", 2000)
    (long,) = TextEncoder(tokenizer).encode([text])
    assert len(list(parts(text, StringEncoder(tokenizer, "<|end|>", "<|end|>").contents_with_places))) > 2
    assert long.ids.tolist() == short.ids.tolist()
    assert long.sentence_ends.tolist() == short.sentence_ends.tolist()
    assert long.sentence_ends.any()
