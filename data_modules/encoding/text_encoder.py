"""Encodes documents for text runs: their ids, one end token each, and which tokens end a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from unicodedata import is_normalized

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from data_modules.encoding.sentence_ends import Places, sentence_ends, tokens_at_ends
from data_modules.encoding.strings import StringEncoder, _token_sizes
from data_modules.errors import UserError


@dataclass(frozen=True, slots=True)
class EncodedText:
    """A document in tokens.

    Attributes:
        ids: The start token if the tokenizer puts one before every text, the text, the end token; (T,) int64.
        sentence_ends: Whether each token completes a sentence, (T,) bool. The end token does not.
        num_bytes: Bytes of the text in UTF-8.
    """

    ids: npt.NDArray[np.int64]
    sentence_ends: npt.NDArray[np.bool_]
    num_bytes: int


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
        return [self._document(text, ids) for text, ids in zip(texts, self._strings._contents([*texts]), strict=True)]

    def _document(self, text: str, ids: list[int]) -> EncodedText:
        opening, end = self.document_start, int(self.tokenizer.eos_token_id)
        marks = np.zeros(len(opening) + len(ids) + 1, dtype=np.bool_)
        marks[len(opening) + self._ends(text, ids)] = True
        return EncodedText(np.asarray([*opening, *ids, end], dtype=np.int64), marks, len(text.encode()))

    def _ends(self, text: str, ids: list[int]) -> Places:
        """The tokens that end a sentence."""
        ends, spaces = sentence_ends(text)
        if not len(ends) or not ids:
            return ends[:0]
        if self._sizes is not None and (text.isascii() or is_normalized("NFC", text)):
            # in bytes, because a token may end inside a character; other bytes continue one
            raw, sizes = np.frombuffer(text.encode(), dtype=np.uint8), self._sizes[ids]
            stops = np.cumsum(sizes)
            if stops[-1] == len(raw):
                byte_of = np.append(np.flatnonzero(raw & 0xC0 != 0x80), len(raw))
                return tokens_at_ends(byte_of[ends], byte_of[spaces], stops - sizes, stops)
        places = np.asarray(self._offsets(text), dtype=np.int64).reshape(-1, 2)
        return tokens_at_ends(ends, spaces, np.maximum.accumulate(places[:, 0]), places[:, 1])

    def _offsets(self, text: str) -> list[tuple[int, int]]:
        """The characters that each token covers, as the tokenizer reports them; slow."""
        strings = self._strings
        (whole,) = strings._batch([text], plain=True, places=True)
        if strings.reserved_ids.isdisjoint(whole.ids):
            return list(whole.offsets)
        pieces = strings._inside_markers.split(text)
        places = accumulate(map(len, pieces), initial=0)
        encodings = strings._batch(pieces, plain=True, places=True)
        return [(at + a, at + b) for at, each in zip(places, encodings, strict=False) for a, b in each.offsets]

    @cached_property
    def _sizes(self) -> Places | None:
        """The bytes of each token; None unless the tokens of a text are always its bytes."""
        sizes = _token_sizes(self.tokenizer, len(self.tokenizer))
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
