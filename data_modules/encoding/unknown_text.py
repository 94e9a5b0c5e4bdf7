"""Text that a tokenizer cannot represent: what its unknown token replaces, and characters that vanish or change."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from tokenizers import Encoding
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerBase

_HARMLESS = {
    "Sequence", "ByteLevel", "NFC", "NFD", "NFKC", "NFKD", "Prepend", "Metaspace", "Split", "Digits", "Punctuation",
    "UnicodeScripts", "Whitespace", "WhitespaceSplit",
}  # fmt: skip
"""Normalisers and pre-tokenizers that keep every character but white space, unless told to remove some."""

_SHOWN = 20
"""Characters of a message."""


class TextCheck:
    """Finds what a tokenizer cannot represent. White space that vanishes does not count: many drop some of it.

    Args:
        tokenizer: Any fast one.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._is_kept: dict[str, bool] = {}

    def lost(self, text: str, ids: list[int]) -> str | None:
        """The first thing in a text that its ids do not hold, for a message; None if they hold everything.

        Costs nothing for tokenizers that know every byte.
        """
        if self.knows_every_byte:
            return None
        if self._unknown_id is not None and self._unknown_id in ids:
            return self._first_unknown(text)
        characters = set(text)
        self._is_kept.update({new: self._keeps(new) for new in characters.difference(self._is_kept)})
        missing = [character for character in characters if not self._is_kept[character]]
        return _shown(min(missing, key=text.index)) if missing else None

    @cached_property
    def knows_every_byte(self) -> bool:
        """Whether every text has ids of its own: no part of the tokenizer drops or changes anything."""
        backend = self._backend
        if not (_is_harmless(backend.normalizer) and _is_harmless(backend.pre_tokenizer)):
            return False
        parts = [*_parts(backend.normalizer), *_parts(backend.pre_tokenizer)]
        if any(part["type"] == "ByteLevel" for part in parts):
            return all(backend.token_to_id(character) is not None for character in ByteLevel.alphabet())
        if getattr(backend.model, "byte_fallback", False):
            return all(backend.token_to_id(f"<0x{byte:02X}>") is not None for byte in range(256))
        return False

    @cached_property
    def _model(self) -> dict[str, Any]:
        settings: dict[str, Any] = json.loads(self._backend.model.__getstate__())
        return {name: settings.get(name) for name in ("type", "unk_id", "unk_token")}

    @cached_property
    def _unknown_id(self) -> int | None:
        """The id that the model puts in the place of what it does not know; None if it puts none."""
        model = self._model
        if model.get("unk_id") is not None:  # of a Unigram model
            return int(model["unk_id"])
        unknown = model.get("unk_token")
        return None if unknown is None else self._backend.token_to_id(unknown)

    def _first_unknown(self, text: str) -> str:
        encoding = self._encode(text)
        if self._unknown_id not in encoding.ids:  # it is in the halves of a marker that had to be broken up
            return _shown(text)
        start, end = encoding.offsets[encoding.ids.index(self._unknown_id)]
        return _shown(text[start:end] or text)  # a sign that a normaliser adds has no place in the text

    def _encode(self, text: str) -> Encoding:
        """As contents are encoded: markers are plain text. The tokenizer's wrapper resets this at every call."""
        self._backend.encode_special_tokens = True
        self._backend.no_truncation()
        encoding: Encoding = self._backend.encode(text, add_special_tokens=False)
        return encoding

    def _keeps(self, character: str) -> bool:
        """Whether a character gets as far as the model; of a model that drops what it does not know, into the ids."""
        if character.isspace():
            return True
        if self._model["type"] != "BPE" or self._unknown_id is not None:
            normalizer, splitter = self._backend.normalizer, self._backend.pre_tokenizer
            rest = normalizer.normalize_str(character) if normalizer else character
            return bool(splitter.pre_tokenize_str(rest) if splitter else rest)
        ids = self._encode(character).ids
        return _bare(self._backend.decode(ids, skip_special_tokens=False)) == _bare(character)


def _shown(text: str) -> str:
    return ascii(text[:_SHOWN]) if unicodedata.combining(text[0]) else repr(text[:_SHOWN])


def _bare(text: str) -> str:
    """Without spaces, however they are marked, and in one of the forms in which Unicode spells a character."""
    return "".join(unicodedata.normalize("NFKC", text).replace("\u2581", " ").split())


def _is_harmless(component: Any) -> bool:
    return all(
        (part["type"] in _HARMLESS and part.get("behavior") != "Removed")
        or (part["type"] == "Replace" and part["content"] == "\u2581")  # of spaces, by SentencePiece's sign for them
        for part in _parts(component)
    )


def _parts(component: Any) -> Iterator[dict[str, Any]]:
    """A normaliser or pre-tokenizer, or the members of a sequence of them, as JSON."""
    if component is None:
        return
    found = json.loads(component.__getstate__())
    pending = [found]
    while pending:
        part = pending.pop()
        yield part
        pending += part.get("normalizers", []) + part.get("pretokenizers", [])
