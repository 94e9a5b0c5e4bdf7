from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from data_modules.encoding.cache import encode_sources, load_ledgers
from data_modules.encoding.encoder import Encoder
from data_modules.encoding.ledger import Ledger
from data_modules.encoding.unknown_text import TextCheck
from data_modules.records.conversation import Conversation, Message, Role
from data_modules.records.splits import Sources
from data_modules.rendering.templates import resolve_template
from tests.conftest import byte_tokenizer

LETTERS = {chr(code): code - 32 for code in range(32, 127)}
BYTES = {f"<0x{byte:02X}>": byte for byte in range(256)}
SPACES = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]


def build(model: Any, normalizer: Any = None, splitter: Any = None, decoder: Any = None) -> Tokenizer:
    tokenizer = Tokenizer(model)
    for name, part in (("normalizer", normalizer), ("pre_tokenizer", splitter), ("decoder", decoder)):
        if part is not None:
            setattr(tokenizer, name, part)
    return tokenizer


def byte_level(**changes: Any) -> Tokenizer:
    """The byte-level test tokenizer with some components replaced."""
    return Tokenizer.from_str(json.dumps(json.loads(byte_tokenizer().backend_tokenizer.to_str()) | changes))


def without_a_byte() -> Tokenizer:
    parts = json.loads(byte_tokenizer().backend_tokenizer.to_str())
    del parts["model"]["vocab"]["æ"]  # represents the first byte of 日
    return Tokenizer.from_str(json.dumps(parts))


COMPLETE: dict[str, Callable[[], Tokenizer]] = {
    "byte level": byte_level,
    "byte level after NFC": lambda: byte_level(normalizer={"type": "NFC"}),
    "byte fallback": lambda: build(
        models.BPE({**BYTES, "▁": 256, "<unk>": 257}, [], unk_token="<unk>", byte_fallback=True),
        normalizers.Sequence(SPACES),
    ),
}
PARTIAL: dict[str, Callable[[], Tokenizer]] = {
    "bigrams that drop unknown characters": lambda: build(models.BPE(LETTERS, [])),
    "bigrams": lambda: build(models.BPE({**LETTERS, "<unk>": 95}, [], unk_token="<unk>")),
    "words": lambda: build(
        models.WordLevel({"plain": 0, "ab": 1, "<unk>": 2}, unk_token="<unk>"), None, pre_tokenizers.Whitespace()
    ),
    "pieces": lambda: build(
        models.Unigram([("<unk>", 0.0), *((letter, -1.0) for letter in LETTERS), ("▁", -1.0)], unk_id=0),
        None,
        pre_tokenizers.Metaspace(),
        decoders.Metaspace(),
    ),
    "ends of words": lambda: build(
        models.BPE(
            {**{f"{c}</w>": i for c, i in LETTERS.items()}, **{c: i + 95 for c, i in LETTERS.items()}},
            [],
            end_of_word_suffix="</w>",
        ),
        None,
        pre_tokenizers.Whitespace(),
        decoders.BPEDecoder("</w>"),
    ),
    "byte level without a byte": without_a_byte,
    "a character removed": lambda: byte_level(
        normalizer={"type": "Replace", "pattern": {"String": "日"}, "content": ""}
    ),
    "a character split off": lambda: build(
        models.BPE({**LETTERS, "日": 95}, []), None, pre_tokenizers.Split("日", "removed")
    ),
}


def check(tokenizer: Tokenizer, text: str) -> str | None:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    return TextCheck(PreTrainedTokenizerFast(tokenizer_object=tokenizer)).lost(text, ids)


@pytest.mark.parametrize("name", COMPLETE)
def test_tokenizer_that_knows_every_byte_loses_nothing(name: str) -> None:
    for text in ("plain ab", "a日b", "😀", "e\u0301", "\x00", "a\u200db\n"):
        assert check(COMPLETE[name](), text) is None


@pytest.mark.parametrize("name", PARTIAL)
def test_what_a_tokenizer_cannot_represent_is_found(name: str) -> None:
    assert check(PARTIAL[name](), "plain ab") is None
    assert check(PARTIAL[name](), "plain   ab") is None
    lost = check(PARTIAL[name](), "ab plain 日")
    assert lost == "'日'"


def test_letters_that_a_normaliser_changes_are_found() -> None:
    assert check(byte_level(normalizer={"type": "Lowercase"}), "ab Cd") == "'C'"
    assert check(byte_level(normalizer={"type": "StripAccents"}), "e\u0301") == r"'\u0301'"


def test_ledger_counts_conversations_with_unknown_text(tmp_path: Path, write: Callable[..., str]) -> None:
    model = models.BPE({**LETTERS, "<end>": 95}, [])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=build(model), eos_token="<end>")
    encoder = Encoder(tokenizer, resolve_template("plain", tokenizer), 200)
    rows = [{"prompt": "q", "completion": text} for text in ("plain", "日", "日 and 😀", "ab")]
    sources = Sources({"train": [write("a.jsonl", rows)]})
    ledger = load_ledgers(encode_sources(sources, encoder, tmp_path))["train"]
    assert ledger["unknown_text"]["count"] == 2
    assert [message.rpartition("/")[2] for message in ledger["unknown_text"]["first"]] == [
        "a.jsonl:2: '日'",
        "a.jsonl:3: '日'",
    ]


def test_text_that_makes_a_tokenizer_fail_is_an_invalid_record(tmp_path: Path, write: Callable[..., str]) -> None:
    words = {"plain": 0, "words": 1, "<end>": 2, "\n\n": 3, "q": 4}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=build(models.WordLevel(words), None, pre_tokenizers.WhitespaceSplit()), eos_token="<end>"
    )
    encoder = Encoder(tokenizer, resolve_template("plain", tokenizer), 200)
    text = Conversation((Message(Role.TEXT, "plain words"),), "a.jsonl:1")
    assert encoder.encode(text, Ledger())[0].input_ids.tolist() == [0, 1, 2]
    path = write("a.jsonl", [{"text": "plain words"}, {"text": "other words"}])
    with pytest.raises(ValueError, match=r"a\.jsonl:2: the tokenizer cannot encode this text \(WordLevel error"):
        encode_sources(Sources({"train": [path]}), encoder, tmp_path)
    folder = encode_sources(Sources({"train": [path]}, on_invalid="drop"), encoder, tmp_path)
    ledger = load_ledgers(folder)["train"]
    assert (ledger["invalid"]["count"], ledger["examples"]) == (1, 1)


@pytest.mark.parametrize("on_invalid", ["error", "drop"])
@pytest.mark.parametrize("is_special", [True, False])
def test_markers_in_contents_that_become_unknown_are_named(
    tmp_path: Path, write: Callable[..., str], on_invalid: Any, is_special: bool
) -> None:
    words = {"hello": 0, "world": 1, "<unk>": 2, "</s>": 3}
    backend = build(models.WordLevel(words, unk_token="<unk>"), None, pre_tokenizers.WhitespaceSplit())
    backend.add_tokens([AddedToken("</s>", special=is_special, normalized=False)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>" if is_special else None)
    template = replace(resolve_template("plain", byte_tokenizer()), end="</s>")
    rows = [{"prompt": "hello </s> world", "completion": "world"}, {"prompt": "hello", "completion": "world"}]
    sources = Sources({"train": [write("a.jsonl", rows)]}, on_invalid=on_invalid)
    ledger = load_ledgers(encode_sources(sources, Encoder(tokenizer, template, 200), tmp_path))["train"]
    assert (ledger["examples"], ledger["unknown_text"]["count"]) == (2, 1)
    (message,) = ledger["unknown_text"]["first"]
    assert "</s>" in message.partition("a.jsonl:1: ")[2]


def test_unknown_character_added_by_a_normaliser_is_reported() -> None:
    tokenizer = build(models.BPE({**LETTERS, "<unk>": 95}, [], unk_token="<unk>"), normalizers.Prepend("▁"))
    assert check(tokenizer, "ab") is not None
