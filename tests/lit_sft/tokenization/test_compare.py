"""Comparing: figures of tokenizers whose ids are known, every Unicode block, faults that are planted."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lit_sft.scripts import ScriptTable, bytes_of_characters
from lit_sft.tokenization.compared import Compared, compared
from lit_sft.tokenization.comparison import num_unused, single_bytes
from lit_sft.tokenization.measures import Measures, measure
from lit_sft.tokenization.texts import Text
from lit_sft.tokenization.unicode_blocks import Block, all_blocks, changed_blocks
from tests.conftest import byte_tokenizer


def byte_level(normalizer: Any = None) -> Compared:
    """One token for each byte, after a normalizer."""
    tokenizer = byte_tokenizer()
    if normalizer is not None:
        tokenizer.backend_tokenizer.normalizer = normalizer
    return compared(tokenizer, "bytes")


def measured(tokenizers: list[Compared], *texts: str) -> Measures:
    return measure((Text(text, f"t:{n}", len(text.encode())) for n, text in enumerate(texts, 1)), tokenizers)


def block(name: str) -> Block:
    return next(each for each in all_blocks() if each.name == name)


def test_blocks_hold_every_character_once() -> None:
    blocks = all_blocks()
    points = [point for each in blocks for point in range(each.start, each.stop)]
    assert points == [point for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    assert block("CJK Unified Ideographs") == Block("CJK Unified Ideographs", 0x4E00, 0xA000)
    assert Block("no block, plane 5", 0x50000, 0x60000) in blocks


def test_byte_level_tokenizer_returns_every_block() -> None:
    assert changed_blocks(byte_level(), all_blocks()) == []


@pytest.mark.parametrize("name", ["Latin-1 Supplement", "Devanagari", "CJK Compatibility Ideographs"])
def test_normalizing_tokenizer_changes_the_characters_that_normalization_changes(name: str) -> None:
    tried = block(name)
    expected = [c for c in map(chr, range(tried.start, tried.stop)) if unicodedata.normalize("NFC", c) != c]
    changed = changed_blocks(byte_level(normalizers.NFC()), [tried])
    assert sum(each.characters for each in changed) == len(expected)
    assert [each.first for each in changed] == expected[:1]
    assert [each.returned for each in changed] == [unicodedata.normalize("NFC", c) for c in expected[:1]]


def test_characters_that_change_in_combination_only_are_told_apart() -> None:
    [changed] = changed_blocks(byte_level(normalizers.NFC()), [block("Hebrew")])
    assert (changed.characters, changed.strings) == (0, 2)
    assert (changed.first[0], changed.returned[0]) == ("\u0592", "\u0596")


def test_scripts_of_neutral_characters_are_those_of_the_letters_before_them() -> None:
    table = ScriptTable()
    names = [table.names[code] for code in table.codes(" 1 ab, 中。2е\u0301!")]
    assert names == ["Latin"] * 7 + ["Han"] * 3 + ["Cyrillic"] * 3
    assert table.codes("12, 3").tolist() == [0] * 5


def test_bytes_of_characters_are_those_of_utf_8() -> None:
    text = "a\x7f\x80\u07ff\u0800\uffff\U00010000"
    assert bytes_of_characters(text).tolist() == [len(character.encode()) for character in text]


def test_figures_of_one_token_for_each_byte() -> None:
    tokenizer = byte_level()
    measures = measured([tokenizer], "ab 12 中文。", "中")
    usage = measures.usages[0]
    by_name = dict(
        zip(measures.scripts, zip(measures.bytes, measures.characters, usage.tokens, strict=False), strict=False)
    )
    assert by_name["Latin"] == (6, 6, 6)
    assert by_name["Han"] == (12, 4, 12)
    assert usage.counts.sum() == usage.tokens.sum() == 18
    assert single_bytes(tokenizer, usage) == 12
    assert num_unused(tokenizer, usage) == 256 - len(set("ab 12 中文。".encode()))
    assert (measures.texts, usage.changed_texts) == (2, 0)


def test_special_tokens_in_text_are_text() -> None:
    [encoding] = byte_level().encode(["<|im_end|>"])
    assert encoding.ids == list(b"<|im_end|>")


def test_every_tokenizer_sees_every_text_whatever_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_sft.tokenization.measures._BATCH", 100)
    texts = ["abc"] * 3 + ["d" * 300, "中" * 300]
    measures = measured([byte_level(), byte_level(), byte_level()], *texts)
    assert [int(usage.counts.sum()) for usage in measures.usages] == [9 + 300 + 900] * 3


def test_first_text_that_changes_is_shown_from_the_difference() -> None:
    measures = measured([byte_level(normalizers.Lowercase())], "same", "not sAme", "B")
    usage = measures.usages[0]
    assert usage.changed_texts == 2
    assert usage.first_change is not None
    assert (usage.first_change.origin, usage.first_change.text, usage.first_change.returned) == ("t:2", "Ame", "ame")


def test_unknown_tokens_are_counted() -> None:
    backend = Tokenizer(models.WordLevel({"[UNK]": 0, "lamp": 1}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.Fuse()
    tokenizer = compared(PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]"), "words")
    measures = measured([tokenizer], "lamp boat lamp")
    assert tokenizer.unknown_id == 0
    assert measures.usages[0].counts.tolist() == [1, 2]
    assert measures.usages[0].changed_texts == 1
