"""Tokens that are added to a tokenizer: their ids, what they do to texts, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from data_modules.encoding.new_tokens import GivenTokenizer, with_new_tokens
from data_modules.encoding.tokenizers import token_sizes
from data_modules.errors import UserError
from data_modules.sft_data_module import SFTDataModule
from data_modules.text_data_module import TextDataModule
from tests.conftest import END, byte_tokenizer, chat_rows

WORD, MARKER = 259, 260


def grown() -> PreTrainedTokenizerFast:
    return with_new_tokens(byte_tokenizer(), ["Rowan"], ["<tool_call>"])  # type: ignore[return-value]


def test_new_tokens_get_the_next_ids_and_leave_the_given_tokenizer_alone() -> None:
    before = byte_tokenizer()
    after = with_new_tokens(before, ["Rowan"], ["<tool_call>"])
    assert after.encode("a Rowan<tool_call>") == [ord("a"), ord(" "), WORD, MARKER]
    assert after.decode([ord("a"), WORD, MARKER]) == "aRowan<tool_call>"
    assert after.decode([ord("a"), WORD, MARKER], skip_special_tokens=True) == "aRowan"
    assert len(before) == WORD
    assert with_new_tokens(before, [], []) is before


def test_saved_tokenizer_has_the_new_tokens(tmp_path: Path) -> None:
    grown().save_pretrained(tmp_path)
    read = AutoTokenizer.from_pretrained(tmp_path)
    assert read.encode("Rowan<tool_call>") == [WORD, MARKER]
    assert {index: token.special for index, token in read.added_tokens_decoder.items() if index >= WORD} == {
        WORD: False,
        MARKER: True,
    }


@pytest.mark.parametrize(
    ("words", "markers", "message"),
    [
        (
            ["<|im_end|>"],
            [],
            r"--model.backbone.add_tokens '<\|im_end\|>': already a token of this tokenizer \(id 258\)",
        ),
        ([], ["<|im_end|>"], r"--model.backbone.add_special_tokens '<\|im_end\|>': already a token"),
        (["a"], [], r"'a': already a token of this tokenizer \(id 97\)"),
        (["x y", "x y"], [], "'x y': given twice"),
        (["x y"], ["x y"], "'x y': given twice"),
        ([" "], [], "at least one character that is not white space"),
        ([], [""], "at least one character that is not white space"),
    ],
)
def test_tokens_that_would_change_nothing_are_refused(words: list[str], markers: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        with_new_tokens(byte_tokenizer(), words, markers)


def test_ids_with_gaps_are_refused() -> None:
    gaps = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "b": 2}, unk_token="a")))
    with pytest.raises(UserError, match="ids of this tokenizer have gaps"):
        with_new_tokens(gaps, ["c"], [])


def test_words_are_tokens_in_contents_and_markers_are_not(make_data: Callable[..., SFTDataModule]) -> None:
    rows = [{"instruction": "Is Rowan <tool_call>?", "output": "Rowan"}]
    data = make_data(rows, template="plain", add_tokens=["Rowan"], add_special_tokens=["<tool_call>"])
    ids = data.stores["train"][0].input_ids.tolist()
    assert ids.count(WORD) == 2
    assert MARKER not in ids
    assert ids[-2:] == [WORD, END]


def test_words_are_tokens_of_documents(make_text: Callable[..., TextDataModule]) -> None:
    data = make_text(["Rowan and <tool_call>. " * 20] * 8, add_tokens=["Rowan"], add_special_tokens=["<tool_call>"])
    ids = data.text_encoder.encode(["Rowan <tool_call>"])[0].ids.tolist()
    assert ids == [WORD, *b" <tool_call>", END]
    assert data.tokenizer.encode("Rowan") == [WORD]


def test_new_tokens_render_templates_that_need_them(make_data: Callable[..., SFTDataModule], tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    old = byte_tokenizer()
    backend = Tokenizer.from_str(old.backend_tokenizer.to_str().replace("im_start", "other_1").replace("im_end", "o_2"))
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>").save_pretrained(folder)
    with pytest.raises(
        UserError, match=r"or add it: `--model.backbone.add_special_tokens '\[<\|im_start\|>, <\|im_end\|>\]'`"
    ):
        make_data(chat_rows(2), tokenizer=str(folder))
    data = make_data(chat_rows(2), tokenizer=str(folder), add_special_tokens=["<|im_start|>", "<|im_end|>"])
    ids = data.stores["train"][0].input_ids.tolist()
    assert data.end_token_id == MARKER
    assert ids[0] == WORD
    assert ids.count(MARKER) == ids.count(WORD) > 1


def test_tokens_are_part_of_what_identifies_encoded_data(make_data: Callable[..., SFTDataModule]) -> None:
    plain, grown = make_data(chat_rows(3)), make_data(chat_rows(3), add_tokens=["no such word"])
    assert {name for name in plain.identity() if plain.identity()[name] != grown.identity()[name]} == {"tokenizer"}
    assert plain.fingerprint != grown.fingerprint


def test_bytes_of_new_tokens_are_counted() -> None:
    sizes = token_sizes(grown(), 262, END)
    assert sizes[[WORD, MARKER, 261]].tolist() == [[5, 5], [0, 0], [0, 0]]


def test_tokenizer_in_memory_is_copied_not_changed() -> None:
    given = byte_tokenizer()
    assert len(GivenTokenizer(given, ["Rowan"]).load()) == len(given) + 1
