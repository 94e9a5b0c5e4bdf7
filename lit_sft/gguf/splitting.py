"""Which of llama.cpp's named ways to split text a tokenizer uses. With another, it would read other tokens.

llama.cpp knows a fixed list of them (`tokenizer.ggml.pre` of a file). A tokenizer is compared with them by its
settings, never by its name.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from data_modules.wording import listed

_GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
_DIGITS = {"type": "Digits", "individual_digits": True}

_AFTER_NUMBERS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = r"|[^\r\n\p{L}\p{N}]?\p{L}+|"
_CONTRACTIONS = ("(?i:'s|'t|'re|'ve|'m|'ll|'d)", "'(?i:[sdmt]|ll|re|ve)", "'(?i:[sdmt]|ll|ve|re)")

_PATTERNS = {
    f"{contraction}{_WORDS}{numbers}{_AFTER_NUMBERS}": name
    for contraction in _CONTRACTIONS
    for numbers, name in ((r"\p{N}", "qwen2"), (r"\p{N}{1,3}", "dbrx"))
}
"""Names of the regular expressions of Qwen's tokenizers, and of Llama 3's without its shortcut for whole words."""

_SHORTCUTS = {"dbrx": "llama-bpe"}
"""Names if a word that is in the vocabulary is a token without any merges (`ignore_merges`)."""

_CONTRACTED = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")


@dataclass(frozen=True, slots=True)
class Splitting:
    """A way to split text.

    Attributes:
        name: llama.cpp's name for it.
        remark: Texts that llama.cpp nevertheless splits differently; empty if there are none.
    """

    name: str
    remark: str = ""


def splitting_of(settings: Mapping[str, Any], tokens: Iterable[bytes]) -> Splitting | None:
    """llama.cpp's name for the way in which a tokenizer splits text; None if it has none.

    Args:
        settings: The content of a tokenizer.json.
        tokens: The bytes of the tokens that can result from merges.
    """
    parts = _parts(settings["pre_tokenizer"])
    has_shortcut = bool(settings["model"].get("ignore_merges"))
    if len(parts) == 2 and _is(parts[1], _BYTES) and _isolates(parts[0]):
        name = _PATTERNS.get(parts[0]["pattern"]["Regex"])
        if has_shortcut:
            name = _SHORTCUTS.get(name or "")
        return Splitting(name) if name else None
    if has_shortcut or not parts or not _is(parts[-1], _GPT2):
        return None
    if len(parts) == 1:
        return Splitting("gpt-2")
    if len(parts) == 2 and _is(parts[0], _DIGITS):
        return Splitting("smollm")
    if len(parts) == 2 and _isolates(parts[0]):
        return _like_gpt2(parts[0]["pattern"]["Regex"], list(tokens))
    return None


def _parts(splitter: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if splitter is None:
        return []
    return list(splitter["pretokenizers"]) if splitter["type"] == "Sequence" else [splitter]


def _is(part: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    return all(part.get(key) == value for key, value in expected.items())


def _isolates(part: Mapping[str, Any]) -> bool:
    is_split = _is(part, {"type": "Split", "behavior": "Isolated", "invert": False})
    return is_split and "Regex" in part["pattern"]


def _like_gpt2(pattern: str, tokens: list[bytes]) -> Splitting | None:
    """GPT-2's splitting for a tokenizer that also isolates some characters, if its tokens show no difference.

    GPT-2's expression leaves such a character in a word with others. The tokens are the same as if it were alone if
    none contains it together with others, in whole or in part. Besides, isolating it ends the white space before it one
    character later, which changes nothing if no token contains two characters of white space.

    Args:
        pattern: A set of characters, such as `[一-鿿]`.
        tokens: The bytes of the tokens.
    """
    if not re.fullmatch(r"\[[^\]\\^-][^\]\\]*\]", pattern):
        return None
    isolated = _encoded(pattern)
    if {b"'", b" "} & isolated or any(character < b"\x80" for character in isolated):
        return None
    spaces = _encoded(r"\s")
    has_rare_space = False
    for units in map(_units, tokens):
        if len(units) > 1 and any(unit in _fragments(isolated) for unit in units):
            return None
        for first, second in itertools.pairwise(units):
            if first in spaces and second in spaces:
                return None
            has_rare_space |= first in _fragments(spaces) and second in _fragments(spaces)
    contracted = [text for text in _CONTRACTED if text.encode() in set(tokens)]
    cases = [f"{listed(contracted)} after a full-width sign"] if contracted else []
    cases += ["white space other than spaces and line breaks before a Chinese character"] if has_rare_space else []
    return Splitting("gpt-2", f"llama.cpp splits {' and '.join(cases)} differently" if cases else "")


@lru_cache(maxsize=4)
def _encoded(pattern: str) -> frozenset[bytes]:
    """All characters that a pattern of one character matches, in UTF-8."""
    matches = re.compile(pattern).fullmatch
    characters = (chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
    return frozenset(character.encode() for character in characters if matches(character))


@lru_cache(maxsize=4)
def _fragments(characters: frozenset[bytes]) -> frozenset[bytes]:
    """The characters, and all bytes that they begin or end with."""
    return frozenset(part for c in characters for size in range(1, len(c) + 1) for part in (c[:size], c[-size:]))


def _units(token: bytes) -> list[bytes]:
    """The characters of a token, of which the first and the last may be incomplete."""
    return list(_each_unit(token))


def _each_unit(token: bytes) -> Iterator[bytes]:
    start = 0
    for place in range(1, len(token) + 1):
        if place == len(token) or not 0x80 <= token[place] < 0xC0:
            yield token[start:place]
            start = place
