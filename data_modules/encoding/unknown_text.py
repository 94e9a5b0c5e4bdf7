"""Finds text that a tokenizer cannot represent: replaced by the unknown token, dropped or changed."""

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
"""Normalisers and pre-tokenizers that keep every character but white space, unless their behavior is Removed."""

_SHOWN = 20
"""Maximum number of characters shown in a message."""


class TextCheck:
    """Finds text that a tokenizer cannot represent. Lost white space does not count: many tokenizers drop some.

    Args:
        tokenizer: Any fast tokenizer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._is_kept: dict[str, bool] = {}

    def lost(self, text: str, ids: list[int]) -> str | None:
        """The first text that the ids do not represent, for a message; None if nothing is lost.

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
        """Whether the tokenizer can represent any text: no step drops or changes anything."""
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
        """The id of the unknown token; None if the model has none."""
        model = self._model
        if model.get("unk_id") is not None:  # of a Unigram model
            return int(model["unk_id"])
        unknown = model.get("unk_token")
        return None if unknown is None else self._backend.token_to_id(unknown)

    def _first_unknown(self, text: str) -> str:
        encoding = self._encode(text)
        if self._unknown_id not in encoding.ids:  # it only occurs because the encoder splits markers in halves
            return _shown(text)
        start, end = encoding.offsets[encoding.ids.index(self._unknown_id)]
        return _shown(text[start:end] or text)  # a character added by a normaliser has no position in the text

    def _encode(self, text: str) -> Encoding:
        """Encode like contents, with markers as plain text. The tokenizer's wrapper resets this at every call."""
        self._backend.encode_special_tokens = True
        self._backend.no_truncation()
        encoding: Encoding = self._backend.encode(text, add_special_tokens=False)
        return encoding

    def _keeps(self, character: str) -> bool:
        """Whether a character survives normalisation or, if the model silently drops unknown ones, encoding."""
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
    """Text without spaces or space marks, in Unicode's normal form NFKC."""
    return "".join(unicodedata.normalize("NFKC", text).replace("\u2581", " ").split())


def _is_harmless(component: Any) -> bool:
    return all(
        (part["type"] in _HARMLESS and part.get("behavior") != "Removed")
        or (part["type"] == "Replace" and part["content"] == "\u2581")  # SentencePiece's mark for a space
        for part in _parts(component)
    )


def _parts(component: Any) -> Iterator[dict[str, Any]]:
    """A normaliser or pre-tokenizer as JSON, with the members of a sequence."""
    if component is None:
        return
    found = json.loads(component.__getstate__())
    pending = [found]
    while pending:
        part = pending.pop()
        yield part
        pending += part.get("normalizers", []) + part.get("pretokenizers", [])
