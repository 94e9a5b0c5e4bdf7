from __future__ import annotations

import os
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from data_modules.encoding.long_texts import encode_long
from data_modules.encoding.strings import StringEncoder
from data_modules.encoding.text_encoder import EncodedText, TextEncoder
from data_modules.errors import UserError
from data_modules.records.readers import read_records
from tests.conftest import END, byte_tokenizer


def sentences(tokenizer: Any, encoded: EncodedText) -> list[str]:
    """The text between the tokens that end a sentence."""
    cuts = [0, *(encoded.sentence_ends.nonzero()[0] + 1).tolist(), len(encoded.ids) - 1]
    return [tokenizer.decode(encoded.ids[a:b]) for a, b in pairwise(cuts) if a < b]


def vocabulary(words: list[str], **settings: Any) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words."""
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="?", **settings)


def test_special_tokens_in_a_text_are_plain_text(tokenizer: PreTrainedTokenizerFast) -> None:
    (encoded,) = TextEncoder(tokenizer).encode(["a<|endoftext|>b<|im_end|>"])
    assert encoded.ids.tolist() == [*b"a<|endoftext|>b<|im_end|>", END]


def test_a_tokenizer_with_a_start_token_puts_it_before_every_document() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<|im_start|>"})
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 257)]
    )
    for encoded in TextEncoder(tokenizer).encode(["Go.", "a"]):
        assert encoded.ids[0] == 257
        assert encoded.ids[-1] == END
        assert not encoded.sentence_ends[0]
    (go,) = TextEncoder(tokenizer).encode(["Go."])
    assert go.sentence_ends.tolist() == [False, False, False, True, False]


def test_a_tokenizer_without_an_end_token_is_refused() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="no end token"):
        TextEncoder(tokenizer)


def test_text_that_a_tokenizer_cannot_represent_is_reported() -> None:
    tokenizer = vocabulary(["?", "</s>", "He", "left."])
    known, unknown = TextEncoder(tokenizer).encode(["He left.", "He vanished. He left."])
    assert known.lost is None
    assert unknown.lost == "'vanished.'"
    assert known.ids.tolist() == [2, 3, 1]
    assert known.sentence_ends.tolist() == [False, True, False]
    assert unknown.sentence_ends.tolist() == [False, True, False, True, False]


def test_a_token_that_goes_on_after_the_sentence_does_not_end_it() -> None:
    tokenizer = vocabulary(["?", "</s>", "他走了。他", "走了。”"])
    (encoded,) = TextEncoder(tokenizer).encode(["他走了。他 走了。”"])
    assert encoded.sentence_ends.tolist() == [False, True, False]


CASES = [
    ["He left.", " She came!", " Really?", " Yes"],
    ['He said "no."', " She left (really.)", "\n\nThe end."],
    ["Pi is 3.14, not 3.", " See www.example.org for v2.0."],
    ["他走了。", "她说：“走吧。”", "真的吗？！", "「好。」", "（完。）"],
    ["圆周率是3.14。", "见 www.example.org 。", "\n\n下一段！"],
    ["Mr.", " Smith, e.g.", " him."],
]


ASSETS = [
    pytest.mark.assets,
    pytest.mark.skipif("LIT_SFT_ASSETS" not in os.environ, reason="LIT_SFT_ASSETS is not set"),
]
RECORDS = pytest.mark.skipif("LIT_SFT_RECORDS" not in os.environ, reason="LIT_SFT_RECORDS is not set")


@pytest.fixture(params=[pytest.param(name, marks=ASSETS) for name in ("gpt2-tokenizer", "qwen2.5-tokenizer")])
def real(request: pytest.FixtureRequest) -> Any:
    """A real tokenizer."""
    return AutoTokenizer.from_pretrained(Path(os.environ["LIT_SFT_ASSETS"]) / request.param)


def test_sentence_ends_with_real_tokenizers(real: Any) -> None:
    for case in CASES:
        (encoded,) = TextEncoder(real).encode(["".join(case)])
        found = sentences(real, encoded)
        assert "".join(found) == "".join(case)
        assert [part.strip() for part in found] == [part.strip() for part in case]


@RECORDS
@pytest.mark.parametrize("file", ["text_en_wiki.txt", "text_zh_45.jsonl"])
def test_ids_are_those_of_the_tokenizer(real: Any, file: str) -> None:
    records = read_records(str(Path(os.environ["LIT_SFT_RECORDS"]) / file), reject=pytest.fail)
    texts = [record.fields["text"] for record in records]
    for text, encoded in zip(texts, TextEncoder(real).encode(texts), strict=True):
        assert encoded.ids.tolist() == [*real(text, verbose=False).input_ids, real.eos_token_id]
        assert encoded.lost is None


@RECORDS
def test_windows_of_real_text_give_the_ids_of_the_whole(real: Any) -> None:
    files = ("text_en_wiki.txt", "text_zh_45.jsonl")
    records = (read_records(str(Path(os.environ["LIT_SFT_RECORDS"]) / file), reject=pytest.fail) for file in files)
    text = "\n".join(record.fields["text"] for record in chain.from_iterable(records))
    strings = StringEncoder(real, real.eos_token, real.eos_token)
    parts = list(encode_long(text, strings.contents_with_places, window=3000, overlaps=(400, 1000)))
    assert np.concatenate([part.ids for part in parts]).tolist() == strings.contents([text])[0]
    assert len(parts) > 200
