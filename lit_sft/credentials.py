"""Keeps credentials out of everything that is shown or written: those of an address, and keys that a server repeats."""

from __future__ import annotations

import base64
import re
import sys
import unicodedata
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, unquote_plus, urlsplit, urlunsplit

_MASK = "***"
_LEAST_PIECE = 4
"""Pieces of a secret of so many letters and digits are masked too: servers cut and space out what they repeat."""

# with escapes such as %2d, \\u002d, \\x2d, &#x2d; and &#45; as one character each
_CHARACTER = re.compile(
    r"(?:%|\\u00|\\x)(?P<hex>[0-9a-fA-F]{2})|&#x(?P<html_hex>[0-9a-fA-F]{1,6});|&#(?P<html>[0-9]{1,7});|.", re.DOTALL
)
_USER = re.compile(r"(?<=://)[^\s/?#\"'<>]*@")
_QUERY = re.compile(r"(://[^\s?#\"'<>]*)([?#])([^\s\"'<>]+)")


def without_credentials(text: str) -> str:
    """Text in which every address has lost its user, password, query values and fragment."""
    return _QUERY.sub(_masked_query, _USER.sub(f"{_MASK}@", text))


def _masked_query(found: re.Match[str]) -> str:
    place, sign, query = found.groups()
    names = [name for name, is_given, _ in (part.partition("=") for part in query.split("&")) if is_given]
    shown = "&".join(f"{name}={_MASK}" for name in names) if sign == "?" and names else _MASK
    return f"{place}{sign}{shown}"


class Secrets:
    """Masks secrets in text, also where they are cut, spaced out, escaped or in base64.

    Letters and digits alone are compared, and pieces of four count: of a secret that is cut, at most three characters
    remain. A secret of fewer letters and digits (such as the key `x` of a local server) is masked only where it is a
    word of its own.

    Args:
        values: The secrets; empty ones are ignored.
    """

    def __init__(self, *values: str) -> None:
        self._words: set[str] = set()
        self._pieces: set[str] = set()
        for variant in {variant for value in values for variant in _variants(value)}:
            plain = "".join(letter.text for letter in _letters(variant))
            if len(plain) < _LEAST_PIECE:
                self._words.add(variant)
            self._pieces |= {plain[at : at + _LEAST_PIECE] for at in range(len(plain) - _LEAST_PIECE + 1)}

    def mask(self, text: str) -> str:
        """Text with `***` for every secret. Mask before you cut: what is cut first is harder to recognise."""
        for word in sorted(self._words, key=len, reverse=True):
            text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", _MASK, text)
        letters = _letters(text)
        plain = "".join(letter.text for letter in letters)
        starts = [at for at in range(len(plain)) if plain[at : at + _LEAST_PIECE] in self._pieces]
        parts, done = [], 0
        for first, last in _runs(starts):
            parts += [text[done : letters[first].begin], _MASK]
            done = letters[last].end
        return "".join([*parts, text[done:]])


def _runs(starts: list[int]) -> list[tuple[int, int]]:
    """The first and last letter of every run of pieces that overlap or touch."""
    runs: list[tuple[int, int]] = []
    for start in starts:
        end = start + _LEAST_PIECE - 1
        if runs and start <= runs[-1][1] + 1:
            runs[-1] = runs[-1][0], end
        else:
            runs.append((start, end))
    return runs


class _Letter(NamedTuple):
    """A letter or digit in lower case, and where it stands in a text."""

    text: str
    begin: int
    end: int


def _letters(text: str) -> list[_Letter]:
    """Letters and digits; escapes of URLs, JSON and HTML are read as what they stand for."""
    return [
        _Letter(letter, found.start(), found.end())
        for found in _CHARACTER.finditer(text)
        for letter in _plain(found).lower()
        if letter.isalnum()
    ]


def _plain(found: re.Match[str]) -> str:
    number, name = found["hex"] or found["html_hex"], found["html"]
    if number or name:
        code = int(number, 16) if number else int(name)
        return chr(code) if code < sys.maxunicode else ""
    return found[0] if found[0].isascii() else unicodedata.normalize("NFKC", found[0])


def _variants(secret: str) -> set[str]:
    """A secret as it is, decoded from a URL, in hexadecimal, and in base64 behind any text."""
    spellings = {secret, unquote(secret), unquote_plus(secret)}
    encoded: set[str] = set()
    for raw in (each.encode("utf-8", "replace") for each in spellings):
        encoded |= {raw.hex(), base64.b64encode(raw).decode()}
        # behind one or two bytes of something else: without the characters that hold bits of these, or of the padding
        encoded |= {base64.b64encode(b"-" * n + raw).decode()[n + 1 :].rstrip("=")[:-1] for n in (1, 2)}
    return {each for each in spellings | encoded if each.strip()}


@dataclass(frozen=True)
class Address:
    """An address of an HTTP server, its credentials set apart.

    Attributes:
        base: Without user, password, query and fragment.
        query: Names and values behind the `?`.
        authorization: What the user and password are as an HTTP header; empty without them.
        values: Everything in it that is secret.
    """

    base: str
    query: dict[str, str] = field(repr=False)
    authorization: str = field(repr=False)
    values: tuple[str, ...] = field(repr=False)


def read_address(text: str, *, setting: str) -> Address:
    """Take an address apart.

    Args:
        text: Such as `https://user:password@host:8080/v1?key=secret`.
        setting: Whose value it is, for the message.

    Raises:
        ValueError: If it is no address of an HTTP server. The message does not repeat it.
    """
    try:
        parts = urlsplit(text.strip())
        is_address = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        is_address = False
    if not is_address:
        raise ValueError(f"{setting}: not an HTTP address; expected one such as http://127.0.0.1:8080/v1.") from None
    given, _, host = parts.netloc.rpartition("@")
    user, password = (unquote(part) for part in (parts.username or "", parts.password or ""))
    basic = base64.b64encode(f"{user}:{password}".encode()).decode() if given else ""
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    return Address(
        base=urlunsplit((parts.scheme, host, parts.path, "", "")),
        query=query,
        authorization=f"Basic {basic}" if basic else "",
        values=tuple(filter(None, (given, user, password, basic, parts.query, parts.fragment, *query.values()))),
    )
