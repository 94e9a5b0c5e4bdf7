"""Keeps credentials out of output and files: those in addresses, and keys that a server repeats in its messages."""

from __future__ import annotations

import base64
import re
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, unquote_plus, urlsplit, urlunsplit

from data_modules.errors import UserError

SHORTEST_PASSWORD = 16
"""Characters, at least, of a key or password of a server of ours that other machines reach, which may guess it."""

_MASK = "***"
_LEAST_PIECE = 8
"""Minimum number of letters and digits of a secret that are masked. Servers may echo keys truncated or with spaces;
anything shorter would also match ordinary words and numbers."""

_PUBLIC = re.compile(
    r"sk-(?:(?:proj|svcacct|admin|or-v\d|ant-(?:api|admin)\d\d)-)?|github_pat_|gh[opsu]_|hf_|gsk_|xai-"
)
"""Key prefixes of known services."""

_PLACEHOLDERS = frozenset(
    (
        "empty",
        "none",
        "null",
        "dummy",
        "test",
        "token",
        "key",
        "no-key",
        "not-needed",
        "placeholder",
        "sk-no-key-required",
    )
)
"""Dummy keys for servers that need none."""

# shortened keys, such as sk-pro...Lm9z
_HEAD = re.compile(r"(?<![\w-])[\w-]{4,256}(?=\.\.|\*\*|…|•)")
_TAIL = re.compile(r"(?:(?<=\.\.)|(?<=\*\*)|(?<=…)|(?<=•))[\w-]{4,256}(?![\w-])")

# escapes such as %2d, \\u002d, \\x2d, &#x2d; and &#45; count as one character each
_ESCAPE = re.compile(
    r"(?:%|\\u00|\\x)(?P<hex>[0-9a-fA-F]{2})|&#x(?P<html_hex>[0-9a-fA-F]{1,6});|&#(?P<html>[0-9]{1,7});"
)
_CHARACTER = re.compile(rf"{_ESCAPE.pattern}|.", re.DOTALL)
_USER = re.compile(r"(?<=://)[^\s/?#\"'<>]*@")
_QUERY = re.compile(r"(://[^\s?#\"'<>]*)([?#])([^\s\"'<>]+)")


def without_credentials(text: str) -> str:
    """Mask the user, password, query values and fragment of every address in a text."""
    return _QUERY.sub(_masked_query, _USER.sub(f"{_MASK}@", text))


def _masked_query(found: re.Match[str]) -> str:
    place, sign, query = found.groups()
    names = [name for name, is_given, _ in (part.partition("=") for part in query.split("&")) if is_given]
    shown = "&".join(f"{name}={_MASK}" for name in names) if sign == "?" and names else _MASK
    return f"{place}{sign}{shown}"


class Secrets:
    """Masks secrets in text, even when they are cut, spaced out, escaped or base64-encoded.

    Only letters and digits are compared; eight in a row are enough for a match, or four at either end of a shortened
    secret such as `sk-pr...x9Zq`. A shorter secret (such as the key `x` of a local server) is masked only as a whole
    word. Placeholders such as `EMPTY` are not masked.

    Args:
        values: The secrets; empty ones are ignored.
    """

    def __init__(self, *values: str) -> None:
        secrets = [value for value in values if value.strip().lower() not in _PLACEHOLDERS]
        self._whole = [secret.strip().lower() for secret in secrets]
        self._words: set[str] = set()
        self._pieces: set[str] = set()
        for variant in {variant for secret in secrets for variant in _variants(secret)}:
            plain = _plain_letters(variant)
            if len(plain) < _LEAST_PIECE:
                self._words.add(variant)
            known = _PUBLIC.match(variant)
            first = max(0, len(_plain_letters(known[0])) - _LEAST_PIECE + 1) if known else 0
            self._pieces |= {plain[at : at + _LEAST_PIECE] for at in range(first, len(plain) - _LEAST_PIECE + 1)}

    def mask(self, text: str) -> str:
        """Replace every secret in a text by `***`. Mask before truncating: a cut secret is harder to recognise."""
        for word in sorted(self._words, key=len, reverse=True):
            text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", _MASK, text)
        text = _HEAD.sub(lambda found: self._shortened(found[0], str.startswith), text)
        text = _TAIL.sub(lambda found: self._shortened(found[0], str.endswith), text)
        if not _ESCAPE.search(text) and not self._starts(text.translate(_PLAIN)):
            return text  # which is nearly every text, and much faster than the positions of its letters
        letters = _letters(text)
        starts = self._starts("".join(letter.text for letter in letters))
        parts, done = [], 0
        for first, last in _runs(starts):
            parts += [text[done : letters[first].begin], _MASK]
            done = letters[last].end
        return "".join([*parts, text[done:]])

    def _starts(self, plain: str) -> list[int]:
        """Where pieces of a secret begin in letters and digits."""
        return [at for at in range(len(plain)) if plain[at : at + _LEAST_PIECE] in self._pieces]

    def _shortened(self, part: str, is_end: Callable[[str, str], bool]) -> str:
        """Mask a word next to an ellipsis if it is the beginning or end of a secret."""
        return _MASK if any(is_end(secret, part.lower()) for secret in self._whole) else part


def _runs(starts: list[int]) -> list[tuple[int, int]]:
    """Merge pieces that overlap or touch; returns the first and last letter of each run."""
    runs: list[tuple[int, int]] = []
    for start in starts:
        end = start + _LEAST_PIECE - 1
        if runs and start <= runs[-1][1] + 1:
            runs[-1] = runs[-1][0], end
        else:
            runs.append((start, end))
    return runs


class _Letter(NamedTuple):
    """A letter or digit in lower case, and its position in the text."""

    text: str
    begin: int
    end: int


def _letters(text: str) -> list[_Letter]:
    """Letters and digits of a text; escapes of URLs, JSON and HTML are decoded."""
    return [
        _Letter(letter, found.start(), found.end())
        for found in _CHARACTER.finditer(text)
        for letter in _plain(found).lower()
        if letter.isalnum()
    ]


class _PlainTable(dict[int, str]):
    """Characters to letters and digits, as `_letters` finds them; filled as characters are met."""

    def __missing__(self, code: int) -> str:
        self[code] = "".join(letter.text for letter in _letters(chr(code)))
        return self[code]


_PLAIN = _PlainTable()


def _plain_letters(text: str) -> str:
    return "".join(letter.text for letter in _letters(text))


def _plain(found: re.Match[str]) -> str:
    number, name = found["hex"] or found["html_hex"], found["html"]
    if number or name:
        code = int(number, 16) if number else int(name)
        return chr(code) if code < sys.maxunicode else ""
    return found[0] if found[0].isascii() else unicodedata.normalize("NFKC", found[0])


def _variants(secret: str) -> set[str]:
    """A secret as given, URL-decoded, in hexadecimal, and in base64 at any offset."""
    spellings = {secret, unquote(secret), unquote_plus(secret)}
    encoded: set[str] = set()
    for raw in (each.encode("utf-8", "replace") for each in spellings):
        encoded |= {raw.hex(), base64.b64encode(raw).decode()}
        # at offset 1 or 2: without the characters that also encode bits of neighbouring bytes or padding
        encoded |= {base64.b64encode(b"-" * n + raw).decode()[n + 1 :].rstrip("=")[:-1] for n in (1, 2)}
    return {each for each in spellings | encoded if each.strip()}


@dataclass(frozen=True)
class Address:
    """The address of an HTTP server, split from its credentials.

    Attributes:
        base: The address without user, password, query and fragment.
        query: Names and values after the `?`.
        authorization: The `Authorization` header for user and password; empty without them.
        values: All secrets in the address.
    """

    base: str
    query: dict[str, str] = field(repr=False)
    authorization: str = field(repr=False)
    values: tuple[str, ...] = field(repr=False)


def read_address(text: str, *, setting: str) -> Address:
    """Split an address into its parts.

    Args:
        text: Such as `https://user:password@host:8080/v1?key=secret`.
        setting: The setting it was given for; named in the error message.

    Raises:
        UserError: If it is not an HTTP address. The message does not repeat it, since it may hold a password.
    """
    try:
        parts = urlsplit(text.strip())
        is_address = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        is_address = False
    if not is_address:
        raise UserError(f"{setting}: not an HTTP address; expected one such as http://127.0.0.1:8080/v1.") from None
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
