"""Text as its tokens arrive: the joined pieces are the decoded whole, cut at a stop string."""

from __future__ import annotations

import hypothesis
import pytest
from hypothesis import strategies
from tokenizers import Tokenizer, decoders, models
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lit_sft.models.text_stream import Characters, TextStream, text_of
from tests.conftest import byte_tokenizer

WORDS = ["▁", "▁hello", "lo", "▁▁", "世", "界", "é", ".", " ", "▁\ufffd", "\ufffd"]


def sentencepiece_tokenizer() -> PreTrainedTokenizerFast:
    """Words and single bytes, decoded as Llama 2's: spaces, bytes, and no space at the start."""
    vocab = {f"<0x{byte:02X}>": byte for byte in range(256)}
    vocab |= {word: 256 + index for index, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True))
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(parts)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def plain_tokenizer() -> PreTrainedTokenizerFast:
    """Without a decoder: tokens are joined by spaces."""
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 2}, "a")))


TOKENIZERS: dict[str, PreTrainedTokenizerBase] = {
    "bytes": byte_tokenizer(),
    "bundled": AutoTokenizer.from_pretrained("examples/tokenizer"),
    "sentencepiece": sentencepiece_tokenizer(),
    "plain": plain_tokenizer(),
}


def pieces_of(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[str]:
    characters = Characters(tokenizer)
    return [*map(characters.push, ids), characters.finish()]


@pytest.mark.parametrize("name", TOKENIZERS)
@hypothesis.given(data=strategies.data())
@hypothesis.settings(max_examples=150)
def test_joined_pieces_of_any_tokens_are_the_decoded_whole(name: str, data: strategies.DataObject) -> None:
    tokenizer = TOKENIZERS[name]
    ids = data.draw(strategies.lists(strategies.integers(0, len(tokenizer) - 1), max_size=30))
    assert "".join(pieces_of(tokenizer, ids)) == text_of(tokenizer, ids)


@pytest.mark.parametrize("name", ["bytes", "bundled"])
@hypothesis.given(text=strategies.text(max_size=12), cut=strategies.integers(0, 3))
@hypothesis.settings(max_examples=150)
def test_no_replacement_character_appears_unless_the_whole_has_it(name: str, text: str, cut: int) -> None:
    tokenizer = TOKENIZERS[name]
    ids = tokenizer(text + "😀").input_ids
    pieces = pieces_of(tokenizer, ids)
    assert "".join(pieces) == text + "😀"
    assert "".join(pieces).count("\ufffd") == text.count("\ufffd")
    cut_short = pieces_of(tokenizer, ids[: len(ids) - cut])
    assert "".join(cut_short) == text_of(tokenizer, ids[: len(ids) - cut])


def test_bytes_are_held_back_until_they_are_a_character() -> None:
    assert pieces_of(TOKENIZERS["bytes"], list("a😀é".encode())) == ["a", "", "", "", "😀", "", "é", ""]


def test_bytes_that_never_become_a_character_are_not_lost() -> None:
    assert pieces_of(TOKENIZERS["bytes"], list("😀".encode()[:3])) == ["", "", "", "\ufffd"]
    assert pieces_of(TOKENIZERS["bytes"], [0xE4, 0xB8, ord("a")]) == ["", "", "\ufffda", ""]


def test_a_row_of_byte_tokens_is_shown_when_it_is_over() -> None:
    tokenizer = TOKENIZERS["sentencepiece"]
    one = [*"中".encode()]
    assert pieces_of(tokenizer, [*one, 257]) == ["", "", "", "中 hello", ""]
    # one wrong byte makes the decoder replace the whole row, the character before it included
    assert pieces_of(tokenizer, [*one, 0x80, 257]) == ["", "", "", "", "\ufffd" * 4 + " hello", ""]


def streamed(text: str, *stop: str) -> tuple[list[str], str | None]:
    stream = TextStream(TOKENIZERS["bytes"], stop)
    pieces = []
    for token in text.encode():
        pieces.append(stream.push(token))
        if stream.stopped_by is not None:
            break
    return [*pieces, stream.finish()], stream.stopped_by


@hypothesis.given(
    text=strategies.text("ab世\n", max_size=20), stop=strategies.text("ab世\n", min_size=1, max_size=4)
)  # fmt: skip
@hypothesis.settings(max_examples=300)
def test_text_ends_before_the_stop_string(text: str, stop: str) -> None:
    pieces, found = streamed(text, stop)
    assert "".join(pieces) == text.split(stop)[0]
    assert (found == stop) == (stop in text)


def test_only_what_may_become_a_stop_string_is_held_back() -> None:
    assert streamed("x\n\ny", "\n\nUser") == (["x", "", "", "\n\ny", ""], None)
    assert streamed("x\n\n", "\n\nUser") == (["x", "", "", "\n\n"], None)


def test_of_several_stop_strings_the_one_that_starts_first_counts() -> None:
    assert streamed("hello", "lo", "ell") == (["h", "", "", "", ""], "ell")
    assert streamed("hello", "l", "ell") == (["h", "", "e", ""], "l")


def test_a_stop_string_in_bytes_that_were_held_back_is_found() -> None:
    stream = TextStream(TOKENIZERS["bytes"], ["\ufffd"])
    assert [stream.push(0xE4), stream.finish(), stream.stopped_by] == ["", "", "\ufffd"]
