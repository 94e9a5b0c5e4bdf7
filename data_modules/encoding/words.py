r"""Ids of texts from the ids of their words: several times as fast as the tokenizer, with the same result.

A byte-level BPE tokenizer splits a text into words with a regular expression and encodes each word alone. People write
the same words again and again, so here each is encoded once. The words of ASCII text are found with Python's `re`,
which finds the same ones if the expression is known: \p{L} is A to Z and a to z there, and \p{N} is 0 to 9.

    Naïve?  "No", says René.
           |"|No|",| says|           found here
    Naïve? |                | René.  found by the tokenizer, in one piece

A piece with other characters reaches from white space to white space, because all known expressions split a text there,
whatever these characters are. Texts that are mostly Chinese, say, are left to the tokenizer.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import chain
from typing import Any

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import NFC
from transformers import PreTrainedTokenizerBase

_MOST_WORDS = 200_000
"""Words kept in memory, about 40 MB."""

_LONGEST = 64
"""Characters of a word that is kept. Longer ones are rare and hardly ever repeat."""

_RARE = 1
"""Bytes that characters beyond ASCII may add to a text, for each of its characters. With more, nothing is gained."""

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CL100K = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_QWEN, _LLAMA3 = _CL100K % r"\p{N}", _CL100K % r"\p{N}{1,3}"

# GPT-2 leaves the last white space before a word to it, if it is a space. The others do so with a tab too, and add the
# line breaks after punctuation to it; white space up to a line break is then one word.
_PIECE = r"[^\s\x80-\U0010ffff]*+[^\x00-\x7f]\S*+"
_PIECES = {
    _GPT2: rf"\s?{_PIECE}",
    **dict.fromkeys((_QWEN, _LLAMA3), rf"[^\S\r\n]?{_PIECE}(?:[\r\n](?:\s*[\r\n])?)?"),
}
"""For every known expression, what finds a piece with other characters than those of ASCII."""

_SPACES = re.compile("[\x85\xa0\u1680\u180e\u2000-\u200b\u2028\u2029\u202f\u205f\u3000]")
"""White space that is not ASCII."""

_BEYOND_ASCII = re.compile(r"\[(?:[^\x00-\x7f]-[^\x00-\x7f]|[^\x00-\x7f])+\]")
"""A class of characters that are not ASCII."""


class WordIds:
    """The ids of texts.

    Args:
        backend: The tokenizer; of a kind for which this is exact.
        source: The expression with which it finds words.
    """

    def __init__(self, backend: Tokenizer, source: str) -> None:
        words = _for_ascii(source)
        self._find = re.compile(words, re.ASCII).findall
        self._find_pieces = re.compile(f"{_PIECES[source]}|{words}", re.ASCII).findall
        self._known = _Known(backend)
        added = backend.get_added_tokens_decoder().items()
        # a marker that takes the white space around it, or only stands alone, is left to the tokenizer
        simple = {token.content: index for index, token in added if _is_simple(token)}
        self._ids_of_markers = {marker: (index,) for marker, index in simple.items()}
        self._others = _any_of(token.content for _, token in added if not _is_simple(token))
        self._markers = _any_of(simple)

    def of(self, text: str, *, plain: bool) -> list[int] | None:
        """The ids of a text; None if only the tokenizer can tell, or is as fast.

        Args:
            text: Any.
            plain: Whether markers of special tokens are plain text. Texts with such markers are left to the tokenizer.
        """
        find = self._find if text.isascii() else self._find_pieces
        if find is self._find_pieces and (self._others or not _is_mostly_ascii(text)):
            return None
        if self._others and self._others.search(text):
            return None
        pieces = self._markers.split(text) if self._markers else [text]
        if len(pieces) == 1:
            return list(chain.from_iterable(map(self._known.__getitem__, find(text))))
        return None if plain else self._between_markers(pieces, find)

    def _between_markers(self, pieces: list[str], find: Any) -> list[int]:
        ids: list[int] = []
        for place, piece in enumerate(pieces):
            if place % 2:
                ids += self._ids_of_markers[piece]
            else:
                ids += chain.from_iterable(map(self._known.__getitem__, find(piece)))
        return ids


class _Known(dict[str, list[int]]):
    """The ids of words, encoded when first seen."""

    def __init__(self, backend: Tokenizer) -> None:
        super().__init__()
        self._backend, self._model = backend, backend.model

    def __missing__(self, word: str) -> list[int]:
        if word.isascii():
            ids = [token.id for token in self._model.tokenize(word.translate(_BYTE_LEVEL))]
        else:
            self._backend.no_truncation()
            self._backend.no_padding()
            ids = self._backend.encode_batch_fast([word], add_special_tokens=False)[0].ids
        if len(word) <= _LONGEST:
            if len(self) >= _MOST_WORDS:
                self.clear()
            self[word] = ids
        return ids


_BYTE_LEVEL = {byte: byte if chr(byte).isprintable() and chr(byte) != " " else 0 for byte in range(128)}
_BYTE_LEVEL |= {byte: 256 + number for number, byte in enumerate(byte for byte in range(128) if not _BYTE_LEVEL[byte])}
"""The character by which byte-level tokenizers write each byte: itself if it can be printed, else one from 256 on."""


def _is_mostly_ascii(text: str) -> bool:
    return len(text.encode()) - len(text) <= _RARE * len(text) and not _SPACES.search(text)


def _is_simple(token: AddedToken) -> bool:
    return not (token.lstrip or token.rstrip or token.single_word or token.normalized)


def _any_of(markers: Iterable[str]) -> re.Pattern[str] | None:
    """Finds markers; of those that begin at the same place, the longest."""
    ordered = sorted(markers, key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, ordered))})") if ordered else None


def words_of(tokenizer: PreTrainedTokenizerBase, num_added: int) -> WordIds | None:
    """The ids of words of a tokenizer; None unless the ids of a text are known to be those of its words.

    Args:
        tokenizer: A fast tokenizer. Tokens may be added to it later.
        num_added: How many added tokens it has, special ones too: a word of the vocabulary may become one.
    """
    return _words_of(tokenizer, len(tokenizer), num_added)


def num_added_tokens(tokenizer: PreTrainedTokenizerBase) -> int:
    """How many tokens are found in a text before it is split into words. Takes 10 microseconds."""
    return len(tokenizer.backend_tokenizer.get_added_tokens_decoder())


@lru_cache(maxsize=4)
def _words_of(tokenizer: PreTrainedTokenizerBase, num_tokens: int, num_added: int) -> WordIds | None:
    backend = tokenizer.backend_tokenizer
    source, model = _source(backend.pre_tokenizer), backend.model
    is_plain = backend.normalizer is None or isinstance(backend.normalizer, NFC)
    # with dropout, the same word has other ids every time
    if source is None or not is_plain or not isinstance(model, BPE) or model.dropout:
        return None
    if model.unk_token is not None and model.token_to_id(model.unk_token) is None:  # it fails at unknown characters
        return None
    found = WordIds(backend, source)
    return found if _agree(found, backend) else None


def _source(splitter: Any) -> str | None:
    """The expression with which a pre-tokenizer finds words; None if it is of an unknown kind."""
    if splitter is None:
        return None
    settings = json.loads(splitter.__getstate__())
    *before, last = settings["pretokenizers"] if settings["type"] == "Sequence" else [settings]
    if last["type"] != "ByteLevel" or last["add_prefix_space"]:
        return None
    if not all(part["type"] == "Split" and part["behavior"] == "Isolated" and not part["invert"] for part in before):
        return None
    sources = [part["pattern"].get("Regex", "") for part in before]
    sources = [source for source in sources if not _BEYOND_ASCII.fullmatch(source)]
    sources += [_GPT2] if last["use_regex"] else []
    return sources[0] if len(sources) == 1 and sources[0] in _PIECES else None


def _for_ascii(source: str) -> str:
    """An expression that finds the same words in ASCII texts, for Python's `re`."""
    for classes in (r"\s\p{L}\p{N}", r"\r\n\p{L}\p{N}"):
        source = source.replace(classes, classes.replace(r"\p{L}\p{N}", "A-Za-z0-9"))
    return source.replace(r"\p{L}", "[A-Za-z]").replace(r"\p{N}", "[0-9]")


def _agree(words: WordIds, backend: Tokenizer) -> bool:
    """Whether texts of all kinds of characters have the ids that the tokenizer itself finds."""
    draw = random.Random(0)
    pieces = [
        *map(chr, range(128)),
        *"aaaBBB     11\n\n\r\t",
        "'s",
        "'LL",
        "the",
        "ing",
        "==",
        "()",
        "...",
        "-\n\n",
        "\r\n",
    ]
    others = [*"éß。中🙂’\u0301", *(token.content for token in backend.get_added_tokens_decoder().values())][:12]
    ascii_only = ["".join(draw.choices(pieces, k=80)) for _ in range(30)]
    mixed = ["".join(draw.choices(pieces, k=30) + draw.choices(others, k=1)) * 4 for _ in range(30)]
    found = backend.encode_batch_fast(ascii_only + mixed, add_special_tokens=False)
    pairs = zip(ascii_only + mixed, found, strict=True)
    return all(words.of(text, plain=False) in (None, encoding.ids) for text, encoding in pairs)
