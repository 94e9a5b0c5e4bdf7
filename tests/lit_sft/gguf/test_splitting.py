"""Names of llama.cpp's ways to split text, from a tokenizer's settings; others are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from data_modules.encoding.tokenizers import load_tokenizer
from lit_sft.gguf.splitting import Splitting, splitting_of
from lit_sft.gguf.vocabulary import vocabulary_of
from lit_sft.tokenization.splitting import PRE_TOKENIZERS
from tests.conftest import byte_tokenizer
from tests.lit_sft.gguf.tokenizers import small_tokenizer, splitting

BUNDLED = str(Path(__file__).parents[3] / "examples" / "tokenizer")


def settings_of(splitter: Any, **model: Any) -> dict[str, Any]:
    tokenizer = Tokenizer(models.BPE(**model))
    tokenizer.pre_tokenizer = splitter
    found: dict[str, Any] = json.loads(tokenizer.to_str())
    return found


@pytest.mark.parametrize(("ours", "theirs"), [("gpt2", "gpt-2"), ("qwen", "qwen2"), ("gpt2_han", "gpt-2")])
def test_each_splitting_of_tokenizer_train_has_a_name(ours: Any, theirs: str) -> None:
    assert splitting_of(settings_of(PRE_TOKENIZERS[ours]()), [b"a", b" a", "我".encode()]) == Splitting(theirs)


@pytest.mark.parametrize("name", ["gpt-2", "smollm", "qwen2", "dbrx", "llama-bpe"])
def test_a_splitting_is_recognised_by_its_settings(name: str) -> None:
    settings = settings_of(splitting(name), ignore_merges=name == "llama-bpe")
    assert splitting_of(settings, []) == Splitting(name)


UNKNOWN = {
    "none": (None, {}),
    "no words": (pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False), {}),
    "prefix space": (pre_tokenizers.ByteLevel(add_prefix_space=True), {}),
    "digits together": (
        pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(add_prefix_space=False)]), {},
    ),
    "another pattern": (
        pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(r"\p{N}{1,2}"), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
        ), {},
    ),
    "removed": (
        pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex("[我-的]"), "removed"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        ), {},
    ),
    "GPT-2 with whole words": (pre_tokenizers.ByteLevel(add_prefix_space=False), {"ignore_merges": True}),
    "Qwen with whole words": (splitting("qwen2"), {"ignore_merges": True}),
}  # fmt: skip


@pytest.mark.parametrize("case", UNKNOWN)
def test_other_splittings_have_no_name(case: str) -> None:
    splitter, model = UNKNOWN[case]
    settings = settings_of(splitter, **model) if splitter else settings_of(pre_tokenizers.Whitespace())
    assert splitting_of(settings, [b"a"]) is None


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([b" a", "é".encode(), "我".encode(), "我".encode()[:2], b"\xe2\x80"], Splitting("gpt-2")),
        (["我的".encode()], None),
        ([" 我".encode()], None),
        ([b" \xe6"], None),  # the beginning of a Chinese character after a space
        ([b"\x91a"], None),  # its end before a letter
        ([b"  "], None),
        ([b"a", b"\n\n"], None),
        ([b"'s", b"'ll"], Splitting("gpt-2", "llama.cpp splits 's, 'll after a full-width sign differently")),
        (
            [b" \xe2\x80"],
            Splitting(
                "gpt-2",
                "llama.cpp splits white space other than spaces and line breaks before a Chinese character differently",
            ),
        ),
    ],
)
def test_isolated_characters_need_tokens_that_show_no_difference(
    tokens: list[bytes], expected: Splitting | None
) -> None:
    assert splitting_of(settings_of(PRE_TOKENIZERS["gpt2_han"]()), tokens) == expected


def test_isolated_ascii_characters_have_no_name() -> None:
    splitter = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex("[我a]"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    assert splitting_of(settings_of(splitter), [b"b"]) is None


def test_vocabulary_has_types_and_unused_ids() -> None:
    tokenizer = small_tokenizer("qwen2")
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    vocabulary = vocabulary_of(tokenizer)
    assert vocabulary.tokens == [str(tokenizer.convert_ids_to_tokens(i)) for i in range(len(tokenizer))]
    kinds = {text: kind.name for text, kind in zip(vocabulary.tokens, vocabulary.types, strict=True)}
    assert (kinds["<|im_end|>"], kinds["<tool>"], kinds["a"]) == ("CONTROL", "USER_DEFINED", "NORMAL")
    assert set(kinds.values()) == {"CONTROL", "USER_DEFINED", "NORMAL"}
    assert vocabulary.remarks() == ["llama.cpp does not compose letters and accents (NFC) as this tokenizer does"]
    first = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"][0]
    assert vocabulary.merges[0] == " ".join(first)


def test_gaps_between_ids_are_unused_tokens() -> None:
    letters = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab={**letters, "ab": 300}, merges=[("a", "b")]))
    tokenizer.pre_tokenizer = splitting("gpt-2")
    tokenizer.decoder = decoders.ByteLevel()
    vocabulary = vocabulary_of(PreTrainedTokenizerFast(tokenizer_object=tokenizer))
    assert len(vocabulary.tokens) == 301
    assert (vocabulary.tokens[256], vocabulary.types[256].name) == ("[PAD256]", "UNUSED")
    assert (vocabulary.tokens[300], vocabulary.types[300].name) == ("ab", "NORMAL")


def changed(path: tuple[Any, ...], value: Any) -> PreTrainedTokenizerFast:
    """The bundled tokenizer with another setting."""
    settings = json.loads(load_tokenizer(BUNDLED).backend_tokenizer.to_str())
    place = settings
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(settings)))


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("model", "byte_fallback"), True, "llama.cpp has no byte_fallback"),
        (("normalizer",), {"type": "Lowercase"}, "llama.cpp has no normaliser Lowercase"),
        (("decoder",), None, "this is BPE with the decoder None"),
        (("added_tokens", 1, "lstrip"), True, r"does not remove white space beside <\|im_start\|>"),
        (("pre_tokenizer",), {"type": "Whitespace"}, "llama.cpp knows no way of splitting text like"),
        (("model",), {"type": "WordLevel", "vocab": {"a": 3}, "unk_token": "a"}, "this is WordLevel"),
    ],
)
def test_tokenizers_that_llama_cpp_cannot_read_are_refused(path: tuple[Any, ...], value: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=rf"^--gguf: this tokenizer cannot be written \(.*{reason}.*\)\. Supported: "):
        vocabulary_of(changed(path, value))


def test_a_tokenizer_without_merges_is_refused() -> None:
    with pytest.raises(ValueError, match="it has no merges"):
        vocabulary_of(byte_tokenizer())


def test_two_tokens_with_one_text_are_refused() -> None:
    letters = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab={**letters, "ab": 300, "[PAD257]": 301}, merges=[("a", "b")]))
    tokenizer.pre_tokenizer, tokenizer.decoder = splitting("gpt-2"), decoders.ByteLevel()
    with pytest.raises(ValueError, match=r"two of its tokens are \[PAD257\]"):  # the name of the unused id 257
        vocabulary_of(PreTrainedTokenizerFast(tokenizer_object=tokenizer))
