"""Encodes documents for text runs: their ids, one end token each, and which tokens end a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from unicodedata import is_normalized

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from data_modules.encoding.long_texts import WINDOW, Part, encode_long
from data_modules.encoding.sentence_ends import Places, sentence_ends, tokens_at_ends
from data_modules.encoding.strings import StringEncoder
from data_modules.encoding.tokenizers import bytes_per_token
from data_modules.encoding.unknown_text import TextCheck
from data_modules.errors import UserError

Ids = npt.NDArray[np.int32]
Marks = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class EncodedText:
    """A document in tokens.

    Attributes:
        ids: The start token if the tokenizer puts one before every text, the text, the end token; (T,) int32.
        sentence_ends: Whether each token completes a sentence, (T,) bool. The end token does not.
        num_bytes: Bytes of the text in UTF-8.
        lost: The first part of the text that the tokenizer cannot represent, for a message; None if there is none.
    """

    ids: Ids
    sentence_ends: Marks
    num_bytes: int
    lost: str | None = None


@dataclass(frozen=True)
class TextEncoder:
    """Encodes documents. Special tokens written in a text are plain text, never control tokens.

    Args:
        tokenizer: A fast Hugging Face tokenizer with an end token.
    """

    tokenizer: PreTrainedTokenizerBase

    def __post_init__(self) -> None:
        if self.tokenizer.eos_token_id is None:
            raise UserError("the tokenizer has no end token (eos_token); expected one, as every document ends with it.")

    def encode(self, texts: Sequence[str]) -> list[EncodedText]:
        """Encode documents.

        Raises:
            UnencodableError: If the tokenizer cannot encode a text.
        """
        short = iter(self._strings.contents([text for text in texts if len(text) <= WINDOW]))
        return [
            self._document(text, [(text, next(short), None)] if len(text) <= WINDOW else self._parts(text))
            for text in texts
        ]

    def _parts(self, text: str) -> Iterator[tuple[str, list[int], Part]]:
        for part in encode_long(text, self._strings.contents_with_places):
            yield part.text, part.ids.tolist(), part

    def _document(self, text: str, parts: Iterable[tuple[str, list[int], Part | None]]) -> EncodedText:
        opening = np.asarray(self.document_start, dtype=np.int32)
        ids, marks, lost = [opening], [np.zeros(len(opening), dtype=np.bool_)], None
        for part, tokens, encoded in parts:
            numbers = np.asarray(tokens, dtype=np.int32)
            ids.append(numbers)
            marks.append(np.zeros(len(numbers), dtype=np.bool_))
            marks[-1][self._ends(part, numbers, encoded)] = True
            lost = lost or self._check.lost(part, tokens)
        ids.append(np.asarray([self.tokenizer.eos_token_id], dtype=np.int32))
        marks.append(np.zeros(1, dtype=np.bool_))
        num_bytes = len(text) if text.isascii() else len(text.encode())
        return EncodedText(np.concatenate(ids), np.concatenate(marks), num_bytes, lost)

    def _ends(self, text: str, ids: Ids, encoded: Part | None) -> Places:
        """The tokens that end a sentence. `encoded` is given if the text is part of a longer one."""
        ends, spaces = sentence_ends(text)
        if not len(ends) or not len(ids):
            return ends[:0]
        byte_of = self._byte_of(text)
        if self._sizes is not None and byte_of is not None:
            # in bytes, because a token may end inside a character
            stops = np.cumsum(sizes := self._sizes[ids])
            if stops[-1] == byte_of[-1]:
                return tokens_at_ends(byte_of[ends], byte_of[spaces], stops - sizes, stops)
        if encoded is None:
            begins, stops = np.asarray(self._strings.contents_with_places(text)[1], dtype=np.int64).reshape(-1, 2).T
        else:  # encoded alone, it could have other tokens: some tokenizers put a mark before every text
            begins, stops = encoded.begins, encoded.ends
        return tokens_at_ends(ends, spaces, np.maximum.accumulate(begins), stops)

    def _byte_of(self, text: str) -> Places | None:
        """The first byte of each character, then the number of bytes; None if tokens may stand for other bytes."""
        if self._sizes is None or not (text.isascii() or is_normalized("NFC", text)):
            return None
        raw = np.frombuffer(text.encode(), dtype=np.uint8)
        return np.append(np.flatnonzero(raw & 0xC0 != 0x80), len(raw))  # the other bytes continue a character

    @cached_property
    def _sizes(self) -> Places | None:
        """The bytes of each token; None unless the tokens of a text are always its bytes."""
        sizes = bytes_per_token(self.tokenizer, len(self.tokenizer))
        return None if sizes is None else np.asarray(sizes, dtype=np.int64)

    @cached_property
    def document_start(self) -> list[int]:
        """The token that this tokenizer puts before every text (Llama's bos), if any."""
        bos = self.tokenizer.bos_token_id
        return [bos] if bos is not None and self.tokenizer("").input_ids[:1] == [bos] else []

    @cached_property
    def _strings(self) -> StringEncoder:
        end = str(self.tokenizer.eos_token)
        return StringEncoder(self.tokenizer, end, end)

    @cached_property
    def _check(self) -> TextCheck:
        return TextCheck(self.tokenizer)
